// Line charts in SVG: axes with round ticks, linear or logarithmic, and a cursor that reads all series at once.
const $ = id => document.getElementById(id);
const make = (tag, attributes = {}, text) => {
  const node = document.createElement(tag);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  return node;
};
const draw = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  return node;
};
const isNumber = value => typeof value === "number" && Number.isFinite(value);

function short(value) {
  if (!isNumber(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e4) for (const [divisor, suffix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= divisor) return +(value / divisor).toPrecision(3) + suffix;
  if (size && size < 1e-3) return value.toExponential(1).replace("e-", "e−");
  return String(+value.toPrecision(4));
}
function time(seconds) {
  if (!isNumber(seconds)) return "–";
  const s = Math.round(seconds), d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}
function ticks(low, high, count, units = [1, 2, 5, 10]) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * units.find(each => each * power >= raw * .999), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found.length > 1 || count > 20 ? found : ticks(low, high, 1.7 * count, units);
}
const timeTicks = (low, high, count) => {
  const raw = (high - low) / count;
  const step = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400].find(each => each >= raw);
  return step ? ticks(low, high, (high - low) / step, [step / 10 ** Math.floor(Math.log10(step))]) : ticks(low, high, count);
};
function logTicks(low, high, count) {
  const from = Math.floor(low), to = Math.ceil(high), found = [];
  const within = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]].map(digits => {
    const all = [];
    for (let p = from; p <= to; p++) digits.forEach(d => { const t = p + Math.log10(d); if (t >= low - 1e-9 && t <= high + 1e-9) all.push(t); });
    return all;
  });
  if (within.at(-1).length < 2) return ticks(10 ** low, 10 ** high, count).map(Math.log10);  // hardly any range
  const fitting = within.filter(each => each.length <= count + 2);
  return fitting.length ? fitting.at(-1) : within[0].filter((_, i, all) => i % Math.ceil(all.length / count) === 0);
}

// series: [{name, x: [], y: [], colour, width, opacity, dots, ring: index}]; options: {height, logX, logY, floor, ceiling, xName, xFormat}
function chart(box, title, series, options = {}) {
  const format = options.format || short, height = options.height || 170;
  const xFormat = options.xFormat || short, wanted = series.filter(each => each.y.some(isNumber));
  const head = make("div", { class: "head" }), key = make("div", { class: "key" }), plot = make("div", { class: "plot" });
  head.append(make("h3", {}, title), key);
  if (options.controls) head.append(options.controls);
  box.replaceChildren(head, plot);
  if (wanted.length > 1) wanted.forEach(each => {
    const item = make("span"), mark = make("i");
    mark.style.background = each.colour; mark.style.opacity = each.opacity || 1; item.append(mark, each.name); key.append(item);
  });
  const width = Math.max(240, plot.clientWidth), svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
  plot.append(svg);
  if (!wanted.length) { plot.replaceChildren(make("p", { class: "faint" }, "nothing recorded yet")); return; }
  const tx = options.logX ? Math.log10 : v => v, ty = options.logY ? v => v > 0 ? Math.log10(v) : NaN : v => v;
  const xs = wanted.flatMap(each => each.x.filter(isNumber).map(tx)), ys = wanted.flatMap(each => each.y.filter(isNumber).map(ty)).filter(isNumber);
  let x0 = Math.min(...xs), x1 = Math.max(...xs), y0 = Math.min(...ys), y1 = Math.max(...ys);
  if (isNumber(options.ceiling) && ty(options.ceiling) > y0) y1 = Math.min(y1, ty(options.ceiling));
  if (options.floor === 0 && !options.logY) y0 = Math.min(0, y0);
  if (x0 === x1) { x0 -= .5; x1 += .5; }
  const pad = (y1 - y0 || Math.abs(y1) * .1 || 1) * .06;
  y1 += pad; if (!(options.floor === 0 && y0 === 0)) y0 -= pad;
  const yMarks = (options.logY ? logTicks : ticks)(y0, y1, Math.max(3, height / 36));
  const label = v => format(options.logY ? 10 ** v : v);
  const left = 12 + 6.6 * Math.max(1, ...yMarks.map(v => label(v).length)), right = width - 8, top = 8, bottom = height - 22;
  const px = v => left + (tx(v) - x0) / (x1 - x0) * (right - left), py = v => bottom - (ty(v) - y0) / (y1 - y0) * (bottom - top);
  const text = (x, y, anchor, words) => { const node = draw("text", { x, y, "text-anchor": anchor }); node.textContent = words; svg.append(node); };
  yMarks.forEach(v => {
    const y = bottom - (v - y0) / (y1 - y0) * (bottom - top);
    svg.append(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y })); text(left - 6, y + 4, "end", label(v));
  });
  const xMarks = (options.logX ? logTicks : xFormat === time ? timeTicks : ticks)(x0, x1, Math.max(2, (right - left) / 95));
  xMarks.forEach(v => {
    const x = left + (v - x0) / (x1 - x0) * (right - left), words = xFormat(options.logX ? 10 ** v : v);
    const room = words.length * 3.4, anchor = x - room < left ? "start" : x + room > width ? "end" : "middle";
    svg.append(draw("line", { class: "axis", x1: x, x2: x, y1: bottom, y2: bottom + 4 })); text(x, bottom + 17, anchor, words);
  });
  const clip = "clip" + Math.random().toString(36).slice(2), window_ = draw("clipPath", { id: clip });
  window_.append(draw("rect", { x: left - 1, y: top - 6, width: right - left + 8, height: bottom - top + 8 })); svg.append(window_);
  const inside = draw("g", { "clip-path": `url(#${clip})` }); svg.append(inside);
  wanted.forEach(each => {
    let path = "", isOpen = false;
    each.x.forEach((x, i) => {
      const isThere = isNumber(x) && isNumber(each.y[i]) && isNumber(ty(each.y[i]));
      if (isThere) path += `${isOpen ? "L" : "M"}${px(x).toFixed(1)},${py(each.y[i]).toFixed(1)}`;
      isOpen = isThere || (isOpen && each.bridges);
    });
    const line = draw("path", { d: path, fill: "none", "stroke-width": each.width || 1.6, "stroke-linejoin": "round", "stroke-linecap": "round" });
    line.style.stroke = each.colour; line.style.opacity = each.opacity || 1; inside.append(line);
    const shown = each.y.filter(isNumber).length;
    if (each.dots || shown <= 30) each.x.forEach((x, i) => {
      if (!isNumber(x) || !isNumber(each.y[i]) || (shown > 60 && i !== each.ring)) return;
      const dot = draw("circle", { cx: px(x), cy: py(each.y[i]), r: i === each.ring ? 4.5 : shown > 30 ? 2 : 2.6, "stroke-width": i === each.ring ? 2 : 0 });
      dot.style.fill = i === each.ring ? "var(--card)" : each.colour; dot.style.stroke = each.colour; dot.style.opacity = each.opacity || 1; inside.append(dot);
    });
  });
  addCursor(plot, svg, wanted, { left, right, top, bottom, width, px, xFormat, format, xName: options.xName || "step" });
}

function addCursor(plot, svg, series, frame) {
  const cursor = draw("line", { class: "cursor", y1: frame.top, y2: frame.bottom, visibility: "hidden" }), tip = make("div", { class: "tip" });
  svg.append(cursor); plot.append(tip);
  const places = [...new Set(series.flatMap(each => each.x.filter(isNumber)))].sort((a, b) => a - b);
  const nearest = (xs, x) => xs.reduce((best, value, i) => isNumber(value) && Math.abs(frame.px(value) - x) < Math.abs(frame.px(xs[best]) - x) ? i : best, xs.findIndex(isNumber));
  plot.onmousemove = event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) * frame.width / box.width;
    const x = places[nearest(places, at)], place = frame.px(x);
    cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.setAttribute("visibility", "visible");
    const rows = make("table");
    rows.insertRow().append(make("td", {}, frame.xName), make("td", {}, frame.xFormat(x)));
    series.forEach(each => {
      const i = nearest(each.x, place);
      if (Math.abs(frame.px(each.x[i]) - place) > 12 || !isNumber(each.y[i])) return;
      const row = rows.insertRow(), name = make("td", {}, each.name); name.style.color = each.colour;
      row.append(name, make("td", {}, frame.format(each.y[i])));
    });
    tip.replaceChildren(rows); tip.style.display = "block";
    const onScreen = place * box.width / frame.width;
    tip.style.left = onScreen > box.width / 2 ? `${onScreen - tip.offsetWidth - 12}px` : `${onScreen + 12}px`;
  };
  plot.onmouseleave = () => { cursor.setAttribute("visibility", "hidden"); tip.style.display = "none"; };
}

// Draw now, and again whenever the width of the page changes.
function keepDrawn(redraw) {
  let width = document.body.clientWidth;
  redraw();
  addEventListener("resize", () => { if (document.body.clientWidth !== width) { width = document.body.clientWidth; redraw(); } });
}
function themeButton(button) {
  const isDark = () => (document.documentElement.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => { button.textContent = isDark() ? "light" : "dark"; };
  button.onclick = () => { document.documentElement.style.colorScheme = isDark() ? "light" : "dark"; show(); };
  if (["#dark", "#light"].includes(location.hash)) document.documentElement.style.colorScheme = location.hash.slice(1);
  show();
}
