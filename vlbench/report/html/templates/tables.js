"use strict";
// Tables that sort by a column, and a search box that hides rows without a word.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : text;
  };

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));

  const sort = (table, header) => {
    const descending = header.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, header.cellIndex), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // rows without a value come last in both orders
      return descending ? compare(b, a) : compare(a, b);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.querySelectorAll("thead th")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }

  const find = document.getElementById("find");
  if (!find) return;
  const counting = document.getElementById("counting");
  const narrow = () => {
    const word = find.value.trim().toLowerCase();
    const rows = [...document.querySelectorAll("table.sortable tbody tr")];
    for (const row of rows) {
      const cells = [...row.cells].slice(1).filter((cell) => value(row, cell.cellIndex) !== null);
      const counts = cells.some((cell) => !cell.classList.contains("doubt"));
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(word) || (counting.checked && !counts);
    }
    document.getElementById("count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  find.addEventListener("input", narrow);
  counting.addEventListener("change", narrow);
  find.form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== find) {
      event.preventDefault();
      find.focus();
    }
  });
  narrow();
})();
