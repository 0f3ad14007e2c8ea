// Attention over an image: regions without attention are dimmed, the others keep their colours.
// boxes: left, top, width and height of each in thousandths of the image's sides; levels: a base-36 digit each.
const attentionOver = (image, boxes, levels) => {
  const made = document.createElement("canvas");
  made.className = "heat";
  made.setAttribute("aria-hidden", "true"); // the caption says it in words
  const scale = 384 / Math.max(image.naturalWidth, image.naturalHeight);
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(scale * side)));
  Object.assign(made, { width, height });
  const box = (place) =>
    boxes.slice(4 * place, 4 * place + 4).map((side, axis) => (side / 1000) * (axis % 2 ? height : width));
  const pen = made.getContext("2d");
  pen.fillStyle = "rgba(0, 0, 0, 0.78)";
  pen.fillRect(0, 0, width, height);
  pen.globalCompositeOperation = "destination-out";
  pen.fillStyle = "black";
  [...levels].forEach((digit, place) => {
    pen.globalAlpha = parseInt(digit, 36) / 35;
    pen.fillRect(...box(place));
  });
  pen.globalCompositeOperation = "source-over";
  pen.globalAlpha = 1;
  const most = levels.indexOf("z");
  if (most < 0) return made;
  for (const [strokeStyle, lineWidth] of [["black", 12], ["#ffd400", 6]]) {
    Object.assign(pen, { strokeStyle, lineWidth });
    pen.strokeRect(...box(most));
  }
  return made;
};
