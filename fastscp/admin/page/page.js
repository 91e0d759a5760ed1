// The page of the service. What it shows was measured by the service: here it only gets its form.
// Whatever came from a peer goes into the document as text (`textContent`), and never as HTML.

import { Chart, clock, element } from "/charts.js";

const LINES_MOST = 200, REFUSALS_MOST = 100, LATEST_MOST = 150, HOUR_MOST = 360;
const FIVE_MINUTES = 300, ONE_HOUR = 3600;
// Between two tries to reach the service, in milliseconds.
const RETRY_LEAST = 1000, RETRY_MOST = 10000;
// Without a word for so long the figures are old.
const OLD_MS = 8000;
const KEPT_AS = "fastscp-token";
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

const at = (id) => document.getElementById(id);
const known = { latest: [], hour: [], refusals: [], log: [], view: null, seconds: FIVE_MINUTES, isOld: false };

// Words ---------------------------------------------------------------------------------------

const count = (number) => number.toLocaleString("en");
const decimals = (number) => number.toLocaleString("en", {
  maximumFractionDigits: number !== 0 && Math.abs(number) < 10 ? 1 : 0,
});

// As `fastscp status` writes them.
function inBytes(number) {
  let unit = 0;
  while (number >= 1000 && unit < UNITS.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit ? number.toFixed(1) : Math.round(number)} ${UNITS[unit]}`;
}

function inTime(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [];
  let left = whole;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    if (left >= size || parts.length || size === 1) {
      parts.push(`${Math.floor(left / size)} ${unit}`);
      left %= size;
    }
  }
  return parts.slice(0, 2).join(" ");
}

function inMs(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10000 ? 0 : 1)} s`;
  return `${ms >= 10 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
// A number stays in one line with its unit.
const joined = (text) => text.replaceAll(" ", "\u00a0");
const endpoint = (host, port) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);

// The document --------------------------------------------------------------------------------

function say(target, text) {
  // What has not changed is not said again, to screen readers above all.
  if (target.textContent !== text) target.textContent = text;
}

// A table whose rows have keys, so that a row stays where it is while its cells change: whoever
// has put the focus on a button in it keeps it.
class Table {
  // columns: [{name, of(row), className}]; of() gives text, or an element where `isElement`.
  constructor(parent, { caption, columns, empty }) {
    this.columns = columns;
    this.rows = new Map();
    this.empty = element("p", empty, "empty");
    this.region = element("div", "", "scroll");
    this.region.tabIndex = 0;
    this.region.setAttribute("role", "region");
    this.region.setAttribute("aria-label", caption);
    const table = element("table", "", "cards");
    // Cards take the table's nature from it, unless it is said.
    table.setAttribute("role", "table");
    table.append(element("caption", caption));
    const head = table.createTHead();
    head.setAttribute("role", "rowgroup");
    const names = head.insertRow();
    names.setAttribute("role", "row");
    for (const column of columns) {
      const cell = element("th", "", column.className ?? "");
      cell.append(column.isUnnamed ? element("span", column.name, "unseen") : column.name);
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      names.append(cell);
    }
    this.body = table.createTBody();
    this.body.setAttribute("role", "rowgroup");
    this.region.append(table);
    parent.append(this.region, this.empty);
    this.show([]);
  }

  // rows: [key, row], in the order in which they are shown.
  show(rows) {
    this.region.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    const kept = new Set(rows.map(([key]) => key));
    for (const [key, line] of this.rows) {
      if (!kept.has(key)) {
        line.remove();
        this.rows.delete(key);
      }
    }
    let before = null;
    for (const [key, row] of rows) {
      const line = this.rows.get(key) ?? this.line(key, row);
      this.fill(line, row);
      const due = before === null ? this.body.firstChild : before.nextSibling;
      if (due !== line) this.body.insertBefore(line, due);
      before = line;
    }
  }

  line(key, row) {
    const line = element("tr");
    line.setAttribute("role", "row");
    this.columns.forEach((column, place) => {
      const cell = element(place ? "td" : "th", "", column.className ?? "");
      if (!place) cell.scope = "row";
      cell.setAttribute("role", place ? "cell" : "rowheader");
      if (!column.isUnnamed) cell.dataset.name = column.name;
      if (column.isElement) cell.append(column.of(row));
      line.append(cell);
    });
    this.rows.set(key, line);
    return line;
  }

  fill(line, row) {
    this.columns.forEach((column, place) => {
      const cell = line.children[place];
      if (column.isElement) return;
      const text = column.of(row);
      say(cell, text);
      cell.classList.toggle("none", text === "");
    });
  }
}

const text = (name, of, className = "") => ({ name, of, className });
const number = (name, of) => ({ name, of, className: "number" });

// What is shown -------------------------------------------------------------------------------

const charts = [
  new Chart(at("charts"), {
    id: "chart-rate", title: "Instances a second", told: (value) => `${decimals(value)}/s`,
    axis: decimals, series: [{ name: "stored", of: (one) => one.instances }],
  }),
  new Chart(at("charts"), {
    id: "chart-volume", title: "Bytes stored a second", told: (value) => `${inBytes(value)}/s`,
    axis: (value) => inBytes(value).replace(".0 ", " "), base: 1024, series: [{ name: "stored", of: (one) => one.bytes }],
  }),
  new Chart(at("charts"), {
    id: "chart-times", title: "Time to a response", told: inMs,
    series: ["p50", "p90", "p99"].map((name) => ({ name, of: (one) => one[name] })),
  }),
];

const abortColumn = {
  name: "Abort", isUnnamed: true, isElement: true,
  of: ({ about }) => {
    const button = element("button", "Abort", "danger");
    button.type = "button";
    button.setAttribute("aria-label", `Abort the association of ${about.calling_ae || about.host}, ${about.id}`);
    button.addEventListener("click", () => askAbort(about));
    return button;
  },
};

const connectionColumns = [
  text("AE titles", ({ about }) => (about.calling_ae || about.called_ae
    ? `${about.calling_ae} \u203a ${about.called_ae}${about.user ? ` (${about.user})` : ""}` : "no request yet")),
  text("Address", ({ about }) => endpoint(about.host, about.port), "whole"),
  text("Rule", ({ about }) => about.rules),
  text("Phase", ({ about }) => about.phase),
  number("Stored", ({ about }) => count(about.stored)),
  number("Refused", ({ about }) => count(about.refused)),
  number("Bytes", ({ about }) => inBytes(about.bytes)),
  number("Rate", ({ rate }) => (rate === null ? "" : `${inBytes(rate)}/s`)),
  number("Age", ({ about }) => inTime(about.age_s)),
];
let connections = null;

const refused = new Table(at("refused"), {
  caption: "What was refused, how often, and what to do", empty: "Nothing was refused.",
  columns: [
    text("What", (one) => one.what), number("How often", (one) => count(one.count)),
    text("When", (one) => one.why, "wide"), text("What to do", (one) => one.advice, "wide"),
  ],
});
const refusals = new Table(at("refusals"), {
  caption: "The last refusals", empty: "The log has told of none yet.",
  columns: [
    text("Time", (one) => clock(one.at), "whole"), text("What", (one) => one.what),
    text("Who", (one) => one.who), text("Why", (one) => one.why, "wide"),
    text("What to do", (one) => one.advice, "wide soft"),
  ],
});
const stored = new Table(at("stored"), {
  caption: "The last instances", empty: "No instance is in the journal yet.",
  columns: [
    text("Time", (one) => (one.at ? clock(Date.parse(one.at) / 1000) : ""), "whole"),
    text("SOP class", (one) => one.sop_class),
    text("AE titles", (one) => `${one.calling_ae} \u203a ${one.called_ae}`),
    number("Bytes", (one) => inBytes(one.bytes)),
    text("Status", (one) => one.status), text("What became of it", (one) => one.outcome),
  ],
});
const workers = new Table(at("workers"), {
  caption: "The workers", empty: "No worker is up.",
  columns: [
    text("Worker", (one) => `${one.number}`), text("State", (one) => one.state),
    number("Connections", (one) => count(one.connections)),
    number("Rate", (one) => `${inBytes(one.rate)}/s`),
  ],
});

function pairs(target, rows) {
  // In place, so that nothing moves and no selection goes.
  rows.forEach(([name, value, more = "", className = ""], place) => {
    let row = target.children[place];
    if (!row) {
      row = element("div");
      row.append(element("dt"), element("dd"));
      target.append(row);
    }
    row.className = className;
    say(row.children[0], name);
    say(row.children[1], value);
    if (more && !row.children[2]) row.append(element("dd"));
    if (row.children[2]) say(row.children[2], more);
  });
  while (target.children.length > rows.length) target.lastChild.remove();
}

function showTiles({ status }) {
  const last = known.latest.at(-1);
  const minute = known.latest.filter((one) => one.at > known.view.now - 60);
  const sum = (name) => minute.reduce((all, one) => all + one[name], 0);
  const { free_bytes: free, min_free_bytes: least } = status.store;
  const times = last && last.p50 !== null ? inMs(last.p50) : "-";
  pairs(at("tiles"), [
    ["Instances", last ? `${decimals(last.instances)}/s` : "-", `${count(status.stored)} stored`],
    ["Volume", last ? `${inBytes(last.bytes)}/s` : "-", `${joined(inBytes(status.bytes))} stored`],
    ["Response, p50", times, last && last.p99 !== null ? `${joined(`p90 ${inMs(last.p90)}`)}, ${joined(`p99 ${inMs(last.p99)}`)}` : "nothing answered"],
    ["Associations", count(status.associations), status.limit ? `of at most ${count(status.limit)}` : `${count(status.connections)} connections`],
    ["Refused", count(status.refused), `${count(sum("refused"))} in the last minute`],
    ["Rejected", count(status.rejected), `${count(sum("rejected"))} in the last minute`],
    ["Free space", free === null ? "not known" : inBytes(free), least ? `stops below ${joined(inBytes(least))}` : "no limit", free !== null && free < least ? "bad" : ""],
    ["Workers", `${status.workers_up} of ${status.workers}`, "up", status.workers_up < status.workers ? "bad" : ""],
  ]);
}

function showState({ status }) {
  const state = at("state");
  const isGood = status.state === "accepting";
  state.className = `state ${isGood ? (status.why ? "old" : "good") : "bad"}`;
  say(state.children[0], status.state);
  const since = status.since ? `since ${day(status.since)}` : "";
  say(state.children[1], [status.why, since].filter(Boolean).join(", "));
  say(at("where"), [...status.addresses, ...status.tls_addresses.map((one) => `${one} with TLS`)].join(", ")
    + ` \u2192 ${status.store.path}`);
  document.title = `${isGood ? "" : `${status.state} \u00b7 `}fastscp`;
  const warnings = [...status.warnings, ...status.aids.map((one) => `test aid in use: ${one}`)];
  if (status.rules.refused.length) warnings.push(`the last reload was refused: ${status.rules.refused[0]}`);
  at("warnings").hidden = warnings.length === 0;
  say(at("warnings"), warnings.join("; "));
}

function showSwitch({ actions, status }) {
  at("switch").hidden = !actions;
  const isPaused = status.state === "paused";
  at("toggle").className = isPaused ? "starts" : "stops";
  say(at("toggle"), isPaused ? "Start accepting" : "Stop accepting");
}

function showFacts({ status, disk }) {
  const until = (seconds) => (seconds ? day(seconds) : "none");
  const rules = `generation ${status.rules.generation}, ${count(status.rules.tables)} tables, taken ${day(status.rules.loaded_at)}`;
  pairs(at("facts"), [
    ["Version", `${status.version}, process ${status.pid}, up ${inTime(status.uptime_s)}`],
    ["Store", `${status.store.path}, id ${status.store.id}`],
    ["Journal", disk.journal_bytes === null ? "not measured yet" : `${inBytes(disk.journal_bytes)} (measured once a minute)`],
    ["In flight", `${inBytes(status.in_flight_bytes)} of complete instances, not committed yet`],
    ["Disk", `${disk.workers_waiting} workers wait for it now, ${inTime(disk.disk_blocked_s)} in all`],
    ["Workers", `${status.workers_up} of ${status.workers} up; replaced after a failure: ${count(disk.worker_restarts.no ?? 0)}, on purpose: ${count(disk.worker_restarts.yes ?? 0)}`],
    ["Certificate", status.certificate_expires ? `${status.certificate}, expires ${until(status.certificate_expires)}` : "none"],
    ...(status.crl_expires ? [["Revocations", `good until ${until(status.crl_expires)}`]] : []),
    ...(status.tls_addresses.length ? [["Handshakes", `${count(status.handshakes_failed)} of TLS failed`]] : []),
    ["Rules", rules + (status.rules.file ? `, from ${status.rules.file}` : "")],
    ["Unfinished", `${count(status.unfinished)} instances were broken off by their sender`],
    ["Duplicates", `${count(status.kept)} instances were not stored, because another one has their path`],
    ["Log", disk.log_lines_lost ? `${count(disk.log_lines_lost)} lines were lost` : "no line was lost"],
  ]);
}

function showConnections(view) {
  if (connections === null) {
    connections = new Table(at("connections"), {
      caption: "The associations and other connections", empty: "No connections.",
      columns: view.actions ? [...connectionColumns, abortColumn] : connectionColumns,
    });
  }
  connections.show(view.connections.map((one) => [one.about.id, one]));
  const more = view.more ? `; ${count(view.more)} more connections are not shown` : "";
  say(at("connections-note"), view.connections.length ? `those that send the most come first${more}` : "");
}

function showLog() {
  if (at("hold").getAttribute("aria-pressed") === "true") return;
  const box = at("log");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
  const last = Number(box.lastElementChild?.dataset.n ?? -1);
  const first = known.log[0]?.n ?? 0;
  while (box.firstElementChild && Number(box.firstElementChild.dataset.n) < first) box.firstElementChild.remove();
  for (const line of known.log) {
    if (line.n <= last) continue;
    const row = element("p", "", line.level);
    row.dataset.n = line.n;
    row.append(element("span", clock(line.at), "at"), " ", element("span", line.level.toUpperCase(), "level"),
      ` ${line.role}: `, line.text);
    box.append(row);
  }
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function show() {
  const { view } = known;
  if (view === null) return;
  at("login").hidden = true;
  at("all").hidden = false;
  showState(view);
  showSwitch(view);
  showTiles(view);
  drawCharts();
  showConnections(view);
  refused.show(view.refused.map((one) => [`${one.what} ${one.why}`, one]));
  refusals.show(known.refusals.toReversed().map((one) => [one.n, one]));
  stored.show(view.stored.map((one, place) => [place, one]));
  workers.show(view.workers.map((one) => [one.number, one]));
  showFacts(view);
  showLog();
}

function drawCharts() {
  if (known.view === null) return;
  const points = known.seconds === ONE_HOUR ? known.hour : known.latest;
  for (const chart of charts) chart.draw(points, known.view.now, known.seconds, known.latest.at(-1), known.isOld);
}

// What the service tells ----------------------------------------------------------------------

function added(before, news, most) {
  // A message may tell again what the one before it told.
  const last = before.at(-1)?.n ?? -Infinity;
  return [...before, ...news.filter((one) => one.n > last)].slice(-most);
}

function take(view) {
  if (view.whole) Object.assign(known, { latest: [], hour: [], refusals: [], log: [] });
  if (view.whole && known.view && known.view.status.run !== view.status.run) at("log").replaceChildren();
  known.view = view;
  known.isOld = false;
  // Where its clock was set back, those of the time that is to come again are of no use.
  const isPast = (one) => one.at <= view.now;
  known.latest = added(known.latest, view.latest, LATEST_MOST).filter(isPast);
  known.hour = added(known.hour, view.hour, HOUR_MOST).filter(isPast);
  known.refusals = added(known.refusals, view.refusals, REFUSALS_MOST);
  known.log = added(known.log, view.log, LINES_MOST);
  show();
}

const isTokenWanted = document.documentElement.dataset.token === "wanted";
const token = () => sessionStorage.getItem(KEPT_AS) ?? "";
const headers = (more = {}) => (token() ? { authorization: `Bearer ${token()}`, ...more } : more);

function trouble(why) {
  at("trouble").hidden = !why;
  say(at("trouble"), why);
  if (!why) return;
  at("state").className = "state old";
  say(at("state").children[0], "no answer");
  say(at("state").children[1], known.view ? `since ${clock(known.view.now)}: the figures are of then` : "");
  if (known.isOld) return;
  known.isOld = true;
  drawCharts();
}

let heard = 0;
setInterval(() => {
  if (heard && Date.now() - heard > OLD_MS) trouble("The service has said nothing for some seconds: what stands below is older.");
}, 1000);

// What goes wrong with the network is that; what goes wrong here has its own words.
const answered = (promise) => promise.catch(() => { throw new Error("it does not answer"); });

// Follow what the service tells, until it ends; throws where it cannot be reached.
async function follow() {
  const stop = new AbortController();
  try {
    const answer = await answered(fetch("/events", { headers: headers(), cache: "no-store", signal: stop.signal }));
    if (answer.status === 401) return askToken(token() ? "That is not the token." : "");
    if (!answer.ok) throw new Error((await answered(answer.text())).trim());
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await answered(reader.read());
      if (done) return true;
      const messages = (rest + value).split("\n\n");
      rest = messages.pop();
      heard = Date.now();
      trouble("");
      for (const message of messages) take(JSON.parse(message.slice("data: ".length)));
    }
  } finally {
    // Else the service goes on telling, and nobody reads.
    stop.abort();
  }
}

let isRunning = false;

async function run() {
  // Whoever presses the button twice does not follow twice.
  if (isRunning) return;
  isRunning = true;
  let wait = RETRY_LEAST;
  for (;;) {
    try {
      const isToGoOn = await follow();
      if (!isToGoOn) break;
      wait = RETRY_LEAST;
    } catch (error) {
      trouble(`The service cannot be asked: ${error.message}. The page asks again.`);
    }
    heard = 0;
    await new Promise((go) => { setTimeout(go, wait); });
    wait = Math.min(wait * 2, RETRY_MOST);
  }
  isRunning = false;
}

function askToken(why) {
  sessionStorage.removeItem(KEPT_AS);
  heard = 0;
  known.view = null;
  at("all").hidden = true;
  at("switch").hidden = true;
  at("login").hidden = false;
  at("state").className = "state";
  say(at("state").children[0], "token wanted");
  say(at("state").children[1], "");
  at("login-why").hidden = !why;
  say(at("login-why"), why);
  at("token").focus();
  return false;
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = at("token").value.trim();
  at("token").value = "";
  // No token has others, and no header can carry all of them.
  if (!/^[!-~]+$/.test(given)) {
    askToken("That is not the token: it has printable ASCII characters alone, and no blanks.");
    return;
  }
  sessionStorage.setItem(KEPT_AS, given);
  run();
});
at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEPT_AS);
  location.reload();
});

// What the service is to do -------------------------------------------------------------------

let wanted = null;

// title, text, verb: of the question. reason: whether one is asked for. act(reason): what to do.
function ask({ title, text: said, verb, reason, act }) {
  wanted = act;
  say(at("ask-h"), title);
  say(at("ask-text"), said);
  say(at("ask-yes"), verb);
  at("ask-field").hidden = !reason;
  at("ask-reason").value = "";
  at("ask-why").hidden = true;
  at("ask-yes").disabled = false;
  at("ask").showModal();
}

async function post(path, body) {
  const answer = await answered(fetch(path, {
    method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body), cache: "no-store",
  }));
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.text()).trim()}`);
  return answer.json();
}

at("ask-no").addEventListener("click", () => at("ask").close());
at("ask-yes").addEventListener("click", async () => {
  at("ask-yes").disabled = true;
  try {
    await wanted(at("ask-reason").value);
    at("ask").close();
  } catch (error) {
    at("ask-why").hidden = false;
    say(at("ask-why"), `That did not work: ${error.message}`);
    at("ask-yes").disabled = false;
  }
});

function askAbort(about) {
  ask({
    title: "Abort this association?", verb: "Abort it", reason: false,
    text: `${about.calling_ae || "no AE title yet"} at ${endpoint(about.host, about.port)} (${about.id}). A message that is complete is still stored; one that is not goes.`,
    act: async () => {
      const { outcome } = await post("/abort", { id: about.id });
      if (outcome === "going on") throw new Error("it was told to end, and is not over yet; see the log");
    },
  });
}

at("toggle").addEventListener("click", () => {
  if (known.view.status.state === "paused") {
    ask({
      title: "Start accepting again?", verb: "Start accepting", reason: false,
      text: "New associations are admitted from then on.", act: () => post("/resume", {}),
    });
    return;
  }
  ask({
    title: "Stop accepting associations?", verb: "Stop accepting", reason: true,
    text: "New associations are rejected with (2,3,1) until somebody starts it again. Those that exist go on.",
    act: (reason) => post("/pause", { reason }),
  });
});

function choose(seconds) {
  known.seconds = seconds;
  at("minutes").setAttribute("aria-pressed", `${seconds === FIVE_MINUTES}`);
  at("hour").setAttribute("aria-pressed", `${seconds === ONE_HOUR}`);
  drawCharts();
}
at("minutes").addEventListener("click", () => choose(FIVE_MINUTES));
at("hour").addEventListener("click", () => choose(ONE_HOUR));
at("hold").addEventListener("click", () => {
  const isHeld = at("hold").getAttribute("aria-pressed") === "true";
  at("hold").setAttribute("aria-pressed", `${!isHeld}`);
  showLog();
});

if (isTokenWanted && !token()) askToken("");
else run();
