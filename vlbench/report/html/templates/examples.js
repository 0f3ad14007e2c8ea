// The examples of a run: filters, order, search and keys. Texts go in as text nodes, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  if (!data) return;
  const PART = 50;
  const SCALE = data.probable ? 100 : 1;
  const byId = (id) => document.getElementById(id);
  const list = byId("list");
  const search = byId("search");
  const form = byId("filters");
  const menus = [...form.querySelectorAll("select[data-tag]")];
  let chosen = [];
  let shown = 0;

  const element = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };

  const outcome = (score) => {
    if (score === null) return "unscored";
    if (score >= 1) return "right";
    return score > 0 ? "partly" : "wrong";
  };

  const flip = (row) => {
    if (row.a.score !== null && row.b.score !== null && row.a.score !== row.b.score) {
      return row.b.score > row.a.score ? "fixed" : "broken";
    }
    return row.a.answer === row.b.answer ? "same" : "differ";
  };

  for (const row of data.rows) {
    row.outcome = outcome(row.a.score);
    row.flip = row.b ? flip(row) : "";
    const texts = [row.id, row.group, row.text, row.reference, row.a.answer, row.a.written, row.b?.answer ?? "", row.b?.written ?? ""];
    row.searched = [...texts, ...Object.values(row.tags)].join("\n").toLowerCase();
  }

  const wanted = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [least, most] = ["least", "most"].map((id) => (byId(id).value === "" ? null : Number(byId(id).value) / SCALE));
    const flipped = byId("flip")?.value ?? "";
    const within = ({ confidence }) => confidence !== null && (least ?? -Infinity) <= confidence && confidence <= (most ?? Infinity);
    return (row) =>
      words.every((word) => row.searched.includes(word)) &&
      (!byId("outcome").value || row.outcome === byId("outcome").value) &&
      (!flipped || row.flip === flipped || (flipped === "flipped" && ["fixed", "broken"].includes(row.flip))) &&
      menus.every((menu) => !menu.value || row.tags[menu.dataset.tag] === menu.value) &&
      ((least === null && most === null) || within(row.a));
  };

  const order = () => {
    const by = (key, sign) => (a, b) => {
      const [x, y] = [key(a), key(b)];
      return x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
    };
    const confidence = (row) => row.a.confidence;
    const score = (row) => row.a.score;
    return {
      sure: by(confidence, -1),
      unsure: by(confidence, 1),
      worst: by(score, 1),
      best: by(score, -1),
      id: (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true }),
    }[byId("order").value];
  };

  const sure = (value) => (data.probable ? `${(100 * value).toFixed(1)} %` : `score ${value.toFixed(4)}`);
  const OUTCOMES = { right: "✓ right", wrong: "✗ wrong", partly: "◐ partly right", unscored: "without a score" };
  const FLIPS = { fixed: "fixed by B", broken: "broken by B", differ: "B answers differently", same: "" };

  const facts = (pairs) => {
    const made = element("dl");
    for (const [name, text] of pairs) {
      if (text === "" || text === undefined) continue;
      const said = element("dd", "", text);
      said.dir = "auto";
      made.append(element("dt", "", name), said);
    }
    return made;
  };

  const heats = new WeakMap(); // figure -> the attention over its image by run
  const toggles = [...document.querySelectorAll("#attention button")];
  let attending = ""; // the run whose attention is shown

  const paint = (figure) => {
    for (const old of figure.querySelectorAll(".heat")) old.remove();
    if (!attending) return;
    const heat = heats.get(figure)[attending];
    const image = figure.querySelector("img");
    if (heat && image?.naturalWidth) image.after(attentionOver(image, data.boxes[heat.boxes], heat.levels));
    const said = heat ? `Most attention: ${heat.said}` : "No attention is recorded";
    figure.append(element("figcaption", "heat", said));
  };

  const attend = (run) => {
    attending = run;
    for (const toggle of toggles) toggle.setAttribute("aria-pressed", String(toggle.dataset.run === run));
    for (const figure of list.querySelectorAll("figure")) if (heats.has(figure)) paint(figure);
  };

  const thumbnail = (key, caption, attended) => {
    const made = element("figure");
    const address = Object.hasOwn(data.images, key) ? data.images[key] : null;
    if (address) {
      const image = element("img");
      image.alt = `image ${key}`;
      image.src = address;
      made.append(element("div", "frame", image));
      if (attended) image.addEventListener("load", () => paint(made));
    } else {
      made.append(element("p", "note", `image ${key} is not available`));
    }
    if (caption) made.append(element("figcaption", "", caption));
    if (attended) {
      heats.set(made, attended);
      paint(made);
    }
    return made;
  };

  const said = (answer) => {
    const text = answer.status === "ok" ? answer.answer : `${answer.status}: ${answer.error || answer.answer}`;
    return answer.confidence === null ? text : `${text} (${sure(answer.confidence)})`;
  };

  const ranked = (answer) => answer.top.map(([label, share]) => `${label}: ${share === null ? "–" : share.toFixed(4)}`).join("\n");

  const details = (row) => {
    const pairs = [["id", row.id], ["group", row.group], ...Object.entries(row.tags), ["whole reference", row.whole]];
    for (const [side, name] of [["a", data.names[0]], ["b", data.names[1]]]) {
      if (!row[side]) continue;
      const of = data.names.length > 1 ? ` (${side.toUpperCase()}, ${name})` : "";
      pairs.push([`score${of}`, row[side].score === null ? "–" : String(row[side].score)]);
      pairs.push([`best answers${of}`, ranked(row[side])], [`generated${of}`, row[side].written], [`error${of}`, row[side].error]);
    }
    const made = element("div", "", facts(pairs));
    const drawn = (row.b ? [[row.a, "A answered with"], [row.b, "B answered with"]] : [[row.a, "answered with"]])
      .filter(([{ answer }]) => Object.hasOwn(data.images, answer) && !row.images.includes(answer))
      .map(([{ answer }, caption]) => thumbnail(answer, caption));
    if (drawn.length) made.append(element("div", "pictures", ...drawn));
    return made;
  };

  const heated = (row, place) => (toggles.length ? { a: row.a.attention[place], b: row.b?.attention[place] } : null);

  const item = (row, number) => {
    const text = element("bdi", "", row.text || row.id);
    text.dir = "auto";
    const marks = [element("span", `mark ${row.outcome}`, `${row.b ? "A " : ""}${OUTCOMES[row.outcome]}`)];
    if (FLIPS[row.flip]) marks.push(" ", element("span", `mark ${row.flip}`, FLIPS[row.flip]));
    const button = element("button", "", ...marks, " ", text);
    button.type = "button";
    const opened = element("div");
    opened.id = `details-${number}`;
    opened.hidden = true;
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", opened.id);
    button.addEventListener("click", () => {
      if (!opened.hasChildNodes()) opened.append(details(row));
      opened.hidden = !opened.hidden;
      button.setAttribute("aria-expanded", String(!opened.hidden));
    });
    const answers = row.b ? [["A answers", said(row.a)], ["B answers", said(row.b)]] : [["answer", said(row.a)]];
    const made = element("li", `example ${row.outcome}`, element("h3", "", button));
    if (row.images.length) made.append(element("div", "pictures", ...row.images.map((key, place) => thumbnail(key, "", heated(row, place)))));
    made.append(facts([["reference", row.reference], ...answers]), opened);
    return made;
  };

  const buttons = () => [...list.querySelectorAll("h3 button")];

  const more = () => {
    const part = chosen.slice(shown, shown + PART);
    list.append(...part.map((row, place) => item(row, shown + place)));
    shown += part.length;
    byId("more").hidden = shown >= chosen.length;
  };

  const update = () => {
    chosen = data.rows.filter(wanted());
    const by = order();
    if (by) chosen.sort(by);
    list.replaceChildren();
    shown = 0;
    more();
    byId("count").textContent = `${chosen.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} examples`;
  };

  const move = (step) => {
    const place = buttons().indexOf(document.activeElement?.closest?.("#list > li")?.querySelector("h3 button"));
    const next = place < 0 ? 0 : place + step;
    if (next >= shown && shown < chosen.length) more();
    buttons()[Math.max(0, next)]?.focus();
  };

  const KEYS = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && form.contains(event.target)) {
      event.target.blur();
      move(0);
      return;
    }
    if (event.target.closest("input, select, textarea")) return;
    const arrow = event.key.startsWith("Arrow");
    // Arrows scroll the page as ever, unless the list has been entered.
    if (event.key in KEYS && (!arrow || list.contains(event.target))) {
      event.preventDefault();
      move(KEYS[event.key]);
    } else if (event.key === "/") {
      event.preventDefault();
      search.focus();
    } else if (event.key === "a" && toggles.length) {
      const runs = ["", ...toggles.map((toggle) => toggle.dataset.run)];
      attend(runs[(runs.indexOf(attending) + 1) % runs.length]);
    }
  });

  for (const toggle of toggles) {
    toggle.addEventListener("click", () => attend(toggle.dataset.run === attending ? "" : toggle.dataset.run));
  }
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => {
    const first = shown;
    more();
    buttons()[first]?.focus();
  });
  update();
})();
