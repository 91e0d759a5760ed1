// Line charts as SVG: a picture with a summary in words, and a table of the same numbers.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 52, RIGHT = 8, TOP = 10, BOTTOM = 22;
const CLASSES = ["one", "two", "three"];
// Rows of a table at most; of more points every so many are shown.
const ROWS_MOST = 60;
// Seconds between two times below a chart, and how far apart they are at least, in pixels.
const STEPS = [60, 120, 300, 600, 900, 1800, 3600];
const APART = 46;
// Half of the width of a time such as 14:05, and the widths of "now" and of one with seconds.
const HALF = 15, NOW = 25, WIDE = 50;

function node(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// UTC, as all times of the page: those of the log, of the journal and of `status` are, too.
export function clock(seconds, withSeconds = true) {
  return new Date(seconds * 1000).toISOString().slice(11, withSeconds ? 19 : 16);
}

// The smallest of 1, 2, 5 times a power of ten that is not below a number; with a base, of units
// that are its powers.
export function above(number, base) {
  if (!(number > 0)) return 1;
  const unit = base ? base ** Math.max(0, Math.floor(Math.log(number) / Math.log(base))) : 1;
  const power = 10 ** Math.floor(Math.log10(number / unit));
  const found = [1, 2, 5, 10].map((one) => one * power).find((one) => one * unit >= number * 0.999);
  return unit * (base && found > 500 ? base : found);
}

export class Chart {
  // title: of the chart. series: [{name, of(point)}], of() in the unit of `told`; null: a gap.
  // told(value): a value with its unit, as text. axis(value): the same, short. base: as of `above`.
  constructor(parent, { id, title, series, told, axis, base }) {
    Object.assign(this, { id, title, series, told, axis: axis ?? told, base });
    this.points = [];
    this.seconds = 300;
    this.figure = element("figure");
    this.figure.id = id;
    const caption = element("figcaption", title);
    if (series.length > 1) caption.append(this.keys());
    this.plot = element("div", "", "plot");
    this.svg = node("svg", { role: "img", "aria-labelledby": `${id}-title ${id}-text` });
    this.plot.append(this.svg);
    this.readout = element("p", "", "readout");
    this.details = element("details");
    this.details.append(element("summary", "The same as a table"));
    this.details.addEventListener("toggle", () => this.tabulate());
    this.figure.append(caption, this.plot, this.readout, this.details);
    parent.append(this.figure);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.leave());
    new ResizeObserver(() => this.paint()).observe(this.plot);
  }

  keys() {
    const keys = element("span", "", "keys");
    this.series.forEach((one, at) => {
      const key = element("span", "", "key");
      const sample = node("svg", { width: 22, height: 8, "aria-hidden": "true" });
      sample.append(node("path", { d: "M1 4H21", class: `line ${CLASSES[at]}` }));
      key.append(sample, one.name);
      keys.append(key);
    });
    return keys;
  }

  // points: the oldest first, each with `at`. seconds: the time that the chart shows, up to `now`.
  // last: the point whose values are those of now, whatever the points are means of; undefined:
  // there is none. isOld: whether the service is silent since `now`.
  draw(points, now, seconds, last, isOld) {
    this.last = last;
    this.isOld = isOld;
    this.points = points.filter((one) => one.at > now - seconds);
    this.now = now;
    this.seconds = seconds;
    this.paint();
    if (this.details.open) this.tabulate();
  }

  paint() {
    const width = this.plot.clientWidth, height = this.plot.clientHeight;
    if (!width || this.now === undefined) return;
    const values = this.series.map((one) => this.points.map((point) => one.of(point)));
    const top = above(Math.max(0, ...values.flat().filter((one) => one !== null)), this.base);
    const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (this.now - at) / this.seconds);
    const y = (value) => height - BOTTOM - (height - TOP - BOTTOM) * Math.min(1, value / top);
    this.x = x;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(
      node("title", { id: `${this.id}-title` }, this.title),
      node("desc", { id: `${this.id}-text` }, this.summary(values)),
      ...this.grid(width, y, top), ...this.times(width, height, x),
    );
    values.forEach((row, at) => this.curve(row, at, x, y));
    this.cursor = node("path", { class: "cursor", d: "" });
    this.svg.append(this.cursor);
    if (!this.isPointed) this.readout.textContent = this.latest();
  }

  *grid(width, y, top) {
    for (const value of [0, top / 2, top]) {
      const at = Math.round(y(value)) + 0.5;
      yield node("path", { class: "grid", d: `M${LEFT} ${at}H${width - RIGHT}` });
      const text = value ? this.axis(value) : "0";
      yield node("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, text);
    }
  }

  *times(width, height, x) {
    const second = (width - LEFT - RIGHT) / this.seconds;
    const step = STEPS.find((one) => one * second >= APART) ?? STEPS.at(-1);
    const end = width - RIGHT - (this.isOld ? WIDE : NOW) - HALF - 4;
    const ground = height - BOTTOM;
    const first = Math.ceil((this.now - this.seconds) / step) * step;
    for (let at = first; at <= this.now; at += step) {
      yield node("path", { class: "grid", d: `M${x(at).toFixed(1)} ${ground}v4` });
      if (x(at) > end) continue;
      yield node("text", { class: "time", x: x(at), y: height - 6, "text-anchor": "middle" }, clock(at, false));
    }
    const text = this.isOld ? clock(this.now) : "now";
    yield node("text", { x: x(this.now), y: height - 6, "text-anchor": "end" }, text);
  }

  curve(row, series, x, y) {
    let line = "", area = "", begun = null, end = 0;
    const ground = y(0);
    this.points.forEach((point, at) => {
      if (row[at] === null) {
        if (begun !== null) area += `L${end} ${ground}L${begun} ${ground}Z`;
        begun = null;
        return;
      }
      end = x(point.at).toFixed(1);
      const step = `${end} ${y(row[at]).toFixed(1)}`;
      line += (begun === null ? "M" : "L") + step;
      area += (begun === null ? "M" : "L") + step;
      // One alone between gaps is a dot.
      if (begun === null) line += `L${step}`;
      begun = begun ?? end;
    });
    if (begun !== null) area += `L${end} ${ground}L${begun} ${ground}Z`;
    if (this.series.length === 1) this.svg.append(node("path", { class: "area", d: area }));
    this.svg.append(node("path", { class: `line ${CLASSES[series]}`, d: line }));
  }

  // In words: what is now, or was when the service was heard last.
  when() {
    return this.isOld ? `no answer since ${clock(this.now)}; then` : "now";
  }

  latest() {
    const last = this.last ? this.line(this.series.map((one) => one.of(this.last))) : "";
    return `${this.when()}: ${last || "nothing"}`;
  }

  line(values) {
    return this.series
      .map((one, at) => [one.name, values[at]])
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => (this.series.length > 1 ? `${name} ${this.told(value)}` : this.told(value)))
      .join(", ");
  }

  summary(values) {
    const known = (row) => row.filter((one) => one !== null);
    const texts = this.series.map((one, at) => {
      const row = known(values[at]);
      if (!row.length) return `${one.name}: nothing.`;
      const told = (value) => this.told(value);
      const last = this.last ? one.of(this.last) : null;
      const now = last === null ? "nothing" : told(last);
      return `${one.name}: ${this.when()} ${now}, least ${told(Math.min(...row))}, most ${told(Math.max(...row))}.`;
    });
    return `The last ${Math.round(this.seconds / 60)} minutes. ${texts.join(" ")}`;
  }

  point(event) {
    if (!this.points.length || !this.x) return;
    const at = event.clientX - this.plot.getBoundingClientRect().left;
    const nearest = this.points.reduce((best, one) =>
      Math.abs(this.x(one.at) - at) < Math.abs(this.x(best.at) - at) ? one : best);
    this.isPointed = true;
    const height = this.plot.clientHeight;
    this.cursor.setAttribute("d", `M${this.x(nearest.at).toFixed(1)} ${TOP}V${height - BOTTOM}`);
    const told = this.line(this.series.map((one) => one.of(nearest)));
    this.readout.textContent = `${clock(nearest.at)}: ${told || "nothing"}`;
  }

  leave() {
    this.isPointed = false;
    this.paint();
  }

  tabulate() {
    this.details.querySelector(".scroll")?.remove();
    if (!this.details.open) return;
    const region = element("div", "", "scroll");
    region.tabIndex = 0;
    region.setAttribute("role", "region");
    region.setAttribute("aria-label", `${this.title}, as a table`);
    const table = element("table");
    table.append(element("caption", this.title));
    const head = table.createTHead().insertRow();
    for (const name of ["Time", ...this.series.map((one) => one.name)]) {
      const cell = element("th", name, name === "Time" ? "" : "number");
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    const every = Math.ceil(this.points.length / ROWS_MOST);
    const shown = this.points.filter((_one, at) => (this.points.length - 1 - at) % every === 0);
    for (const point of shown.reverse()) {
      const row = body.insertRow();
      const time = element("th", clock(point.at));
      time.scope = "row";
      row.append(time);
      for (const one of this.series) {
        const value = one.of(point);
        row.append(element("td", value === null ? "-" : this.told(value), "number"));
      }
    }
    region.append(table);
    this.details.append(region);
  }
}
