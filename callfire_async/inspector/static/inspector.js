// The inspector's page. Whatever comes from outside becomes text, never markup: there is no innerHTML here, and the
// page's policy forbids it.

const MOST_ROWS = 1000;
const OUTCOMES = [
  "waiting", "running", "handled", "failed", "dead", "refused", "duplicate", "unhandled", "released", "lost", "cancelled",
];
const SVG = "http://www.w3.org/2000/svg";
const ANNOUNCED_EVERY = 5000;

const $ = (id) => document.getElementById(id);
const list = $("list");
const detail = $("detail");

// --- the key: from the address to this tab's memory, where no other page and no other program finds it ------------

function takeKey() {
  const given = location.hash.slice(1);
  if (given && given !== "list") {
    sessionStorage.setItem("key", given);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key") ?? "";
}

const key = takeKey();

async function ask(path, method = "GET") {
  const response = await fetch(`api/${path}`, { method, headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
  const said = await response.json();
  if (!response.ok) throw new Error(said.error ?? `status ${response.status}`);
  return said;
}

// --- making nodes ---------------------------------------------------------------------------------------------------

function make(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") node.className = value;
    else if (name === "on") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const badge = (outcome) => make("span", { class: "badge", "data-outcome": outcome }, outcome);

function clock(at) {
  const time = new Date(at * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function moment(at) {
  const day = new Date(at * 1000).toLocaleDateString();
  return day === new Date().toLocaleDateString() ? clock(at) : `${day} ${clock(at)}`;
}

function lasting(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1000) return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// --- state ----------------------------------------------------------------------------------------------------------

const state = {
  run: "",
  cursor: "",
  readOnly: null,
  items: new Map(), // by reference
  letters: new Map(), // dead letters, when they are listed
  lettersKnown: -1,
  view: "all",
  chosen: null,
  revealed: null,
  raw: false,
  paused: false,
  dirty: new Set(),
  drawn: false,
  arrived: 0,
  buried: 0,
};
const rows = new Map(); // elements, by reference
const seen = { kind: new Set(), subscription: new Set() };

const filters = { kind: $("filter-kind"), subscription: $("filter-subscription"), outcome: $("filter-outcome") };
for (const outcome of OUTCOMES) filters.outcome.append(make("option", { value: outcome }, outcome));

function matches(item) {
  return Object.entries(filters).every(([name, select]) => !select.value || item[name] === select.value);
}

function listed() {
  return state.view === "all" ? state.items : state.letters;
}

// --- what comes in --------------------------------------------------------------------------------------------------

async function follow() {
  let wait = 500;
  for (;;) {
    try {
      const response = await fetch(`api/events?after=${encodeURIComponent(state.cursor)}`, {
        headers: { Authorization: `Bearer ${key}` }, cache: "no-store",
      });
      if (response.status === 401) {
        connected("locked");
        say("Open the address that the command has printed: it holds the key.");
        return;
      }
      if (!response.ok) throw new Error();
      wait = 500;
      connected("live");
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // Whoever served it may come back.
    }
    connected("reconnecting");
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(5000, wait * 2);
  }
}

async function read(reader) {
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) take(message);
  }
}

function take(message) {
  const lines = Object.fromEntries(message.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
  const told = JSON.parse(lines.data);
  if (told.run !== state.run) startAnew(told.run);
  state.cursor = lines.id;
  for (const item of told.items) keep(item);
  if (told.minute) beat(told);
  draw();
}

function startAnew(run) {
  state.run = run;
  state.items.clear();
  for (const row of rows.values()) row.remove();
  rows.clear();
  state.dirty.clear();
  state.lettersKnown = -1;
  // Its numbers begin anew: another has the number of the one that was chosen.
  if (state.chosen?.startsWith("deliveries/")) chooseNone();
}

function keep(item) {
  item.ref = `deliveries/${item.number}`;
  const before = state.items.get(item.ref);
  if (!before) state.arrived += 1;
  if (item.outcome === "dead" && before?.outcome !== "dead") state.buried += 1;
  state.items.set(item.ref, item);
  state.dirty.add(item.ref);
  note("kind", item.kind);
  note("subscription", item.subscription);
  if (state.items.size > MOST_ROWS) forget(state.items.keys().next().value);
}

function forget(ref) {
  state.items.delete(ref);
  state.dirty.delete(ref);
  if (state.view === "all") drop(ref);
}

function note(name, value) {
  if (value === null || seen[name].has(value) || seen[name].size >= 100) return;
  seen[name].add(value);
  const words = name === "subscription" ? `subscription ${value}` : value;
  filters[name].append(make("option", { value }, words));
}

function connected(how) {
  const shown = how === "live" && state.paused ? "paused" : how;
  const connection = $("connection");
  connection.dataset.how = how;
  connection.dataset.state = shown;
  put(connection, shown);
}

// --- the last minute ------------------------------------------------------------------------------------------------

function beat(told) {
  put($("title"), `· ${told.title}`);
  state.readOnly = told.readOnly;
  const came = told.minute.reduce((sum, [count]) => sum + count, 0);
  const latencies = told.minute.map((second) => second[2]).filter((value) => value !== null);
  const worst = latencies.length ? Math.max(...latencies) : null;
  const isSlow = came < told.minute.length;
  put($("rate"), isSlow ? String(came) : (came / told.minute.length).toFixed(came < 600 ? 1 : 0));
  put($("rate-unit"), isSlow ? "in a minute" : "a second");
  put($("latency"), lasting(worst));
  put($("waiting"), told.counts.waiting === undefined ? "–" : told.counts.waiting.toLocaleString("en"));
  const dead = told.counts.dead;
  put($("dead"), dead === undefined ? "–" : dead.toLocaleString("en"));
  $("dead").dataset.some = String(dead > 0);
  put($("view-dead"), dead ? `Dead letters ${dead.toLocaleString("en")}` : "Dead letters");
  chart(told.minute, came, worst);
  if (state.view === "dead" && dead !== state.lettersKnown) listLetters(dead);
  announce();
}

const bars = [];
let line = null;

function prepareChart() {
  const svg = $("chart");
  for (let number = 0; number < 60; number += 1) {
    const pair = ["came", "failed"].map((name) => {
      const bar = document.createElementNS(SVG, "rect");
      for (const [attribute, value] of Object.entries({ class: name, x: number * 10 + 1, width: 8, y: 71, height: 0, rx: 1.5 })) bar.setAttribute(attribute, value);
      svg.append(bar);
      return bar;
    });
    bars.push(pair);
  }
  const ground = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ class: "ground", x1: 0, x2: 600, y1: 71.5, y2: 71.5 })) ground.setAttribute(name, value);
  line = document.createElementNS(SVG, "path");
  line.setAttribute("class", "took");
  svg.append(ground, line);
}

function chart(minute, came, worst) {
  const most = Math.max(1, ...minute.map(([count]) => count));
  const tall = (count) => (count === 0 ? 0 : Math.max(2, (count / most) * 68));
  minute.forEach(([count, failed], number) => {
    [count, failed].forEach((value, which) => {
      const height = tall(Math.min(value, most));
      bars[number][which].setAttribute("height", height);
      bars[number][which].setAttribute("y", 71 - height);
    });
  });
  let path = "";
  let drawing = false;
  minute.forEach(([, , took], number) => {
    if (took === null) { drawing = false; return; }
    path += `${drawing ? "L" : "M"}${number * 10 + 5} ${(68 - (took / (worst || 1)) * 60).toFixed(1)}`;
    if (!drawing) path += "h.01";
    drawing = true;
  });
  line.setAttribute("d", path);
  put($("scale"), came ? `up to ${most.toLocaleString("en")} a second · ${lasting(worst)}` : "a minute");
  const words = came ? `In the last minute ${came} came, ${most} a second at most; 95 % were handled in ${lasting(worst)}.` : "Nothing came in the last minute.";
  if ($("chart").getAttribute("aria-label") !== words) $("chart").setAttribute("aria-label", words);
}

let announcedAt = performance.now();

function announce() {
  if (!state.arrived || performance.now() - announcedAt < ANNOUNCED_EVERY) return;
  const letters = state.buried ? `, ${state.buried} dead letters` : "";
  put($("announcer"), `${state.arrived} new deliveries${letters}.`);
  state.arrived = state.buried = 0;
  announcedAt = performance.now();
}

let toastTimer = 0;

function say(words) {
  put($("toast"), words);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => put($("toast"), ""), 5000);
}

// --- the list -------------------------------------------------------------------------------------------------------

function draw() {
  if (state.drawn || state.paused) return;
  state.drawn = true;
  requestAnimationFrame(() => {
    state.drawn = false;
    for (const ref of state.dirty) {
      if (state.view === "all") place(state.items.get(ref));
      if (ref === state.chosen) refresh();
    }
    state.dirty.clear();
    counted();
  });
}

function place(item) {
  const row = rows.get(item.ref);
  if (!matches(item)) drop(item.ref);
  else if (row) fill(row, item);
  else insert(item);
}

function insert(item) {
  const row = make("div", { class: "row new", role: "option", id: `row-${item.ref.replace(/[^\w]/g, "-")}` },
    make("span", { class: "badge" }),
    make("span", { class: "what" }, make("span", { class: "kind" }), " ", make("span", { class: "subject" })),
    make("span", { class: "subscription" }),
    make("span", { class: "time" }),
    make("span", { class: "why" }));
  row.item = item;
  row.addEventListener("click", () => { choose(item.ref); open(); });
  fill(row, item);
  rows.set(item.ref, row);
  // The newest first; what is older finds its place.
  let next = list.firstElementChild;
  while (next && next.item.number > item.number) next = next.nextElementSibling;
  list.insertBefore(row, next);
  row.setAttribute("aria-selected", String(item.ref === state.chosen));
}

function fill(row, item) {
  row.item = item;
  const [outcome, what, subscription, time, why] = row.children;
  if (outcome.dataset.outcome !== item.outcome) outcome.dataset.outcome = item.outcome;
  put(outcome, item.outcome);
  put(what.children[0], item.kind);
  put(what.children[1], item.subject);
  put(subscription, item.subscription === null ? "" : `#${item.subscription}`);
  put(time, clock(item.at));
  const problems = item.problems ? `${item.problems} unreadable ${item.problems === 1 ? "field" : "fields"}` : "";
  const again = item.attempts > 1 ? `attempt ${item.attempts}` : "";
  put(why, [item.reason, again, problems].filter(Boolean).join(" · "));
}

function drop(ref) {
  rows.get(ref)?.remove();
  rows.delete(ref);
}

function redraw() {
  for (const row of rows.values()) row.remove();
  rows.clear();
  const chosen = [...listed().values()].filter((item) => state.view === "dead" || matches(item));
  for (const item of chosen.sort((one, other) => one.number - other.number)) insert(item);
  for (const row of rows.values()) row.classList.remove("new");
  state.dirty.clear();
  counted();
}

function counted() {
  const all = listed().size;
  const words = rows.size === all ? `${all.toLocaleString("en")}` : `${rows.size.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  put($("shown"), all ? words : "");
  const nothing = state.view === "dead" ? "There are no dead letters." : all ? "Nothing fits the filter." : "Nothing has come yet. What CallFire posts shows up here the moment that it does.";
  put($("empty"), nothing);
}

function choose(ref) {
  if (state.chosen === ref) return;
  rows.get(state.chosen)?.setAttribute("aria-selected", "false");
  state.chosen = ref;
  state.revealed = null;
  state.raw = false;
  const row = rows.get(ref);
  if (row) {
    row.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
  }
  refresh(60);
}

function chooseNone() {
  clearTimeout(refreshing);
  state.chosen = state.revealed = null;
  list.removeAttribute("aria-activedescendant");
  detail.replaceChildren(make("p", { class: "placeholder" }, "Choose a delivery to see what was in it, and what became of it."));
  document.body.classList.remove("open");
}

function step(to) {
  const row = rows.get(state.chosen);
  const chosen = { first: list.firstElementChild, last: list.lastElementChild,
    down: row ? row.nextElementSibling : list.firstElementChild,
    up: row ? row.previousElementSibling : list.firstElementChild }[to];
  if (chosen) choose(chosen.item.ref);
}

async function listLetters(known) {
  state.lettersKnown = known;
  try {
    const { items } = await ask("dead");
    state.letters = new Map(items.map((item, index) => [`dead/${encodeURIComponent(item.id)}`, { ...item, number: items.length - index }]));
    for (const [ref, item] of state.letters) item.ref = ref;
    $("replay-all").hidden = state.view !== "dead" || !items.length;
    $("replay-all").disabled = state.readOnly !== null;
    if (state.view === "dead") redraw();
  } catch (error) {
    say(error.message);
  }
}

function view(name) {
  state.view = name;
  $("view-all").setAttribute("aria-pressed", String(name === "all"));
  $("view-dead").setAttribute("aria-pressed", String(name === "dead"));
  document.querySelector(".filters").hidden = name === "dead";
  list.setAttribute("aria-label", name === "dead" ? "Dead letters, the newest first" : "Deliveries, the newest first");
  $("replay-all").hidden = true;
  state.letters = new Map();
  redraw();
  if (name === "dead") listLetters(-1);
}

// --- the chosen one -------------------------------------------------------------------------------------------------

let refreshing = 0;

function refresh(after = 250) {
  clearTimeout(refreshing);
  refreshing = setTimeout(load, after);
}

async function load() {
  const ref = state.chosen;
  if (ref === null) return;
  try {
    const shown = state.revealed === ref ? await ask(`${ref}/reveal`, "POST") : await ask(ref);
    if (ref === state.chosen) show(shown);
  } catch (error) {
    if (ref === state.chosen) say(error.message);
  }
}

async function reveal() {
  if (state.chosen === null) return;
  state.revealed = state.revealed === state.chosen ? null : state.chosen;
  await load();
}

async function replay() {
  if (state.chosen === null) return;
  if (state.readOnly) { say(state.readOnly); return; }
  try {
    await ask(`${state.chosen}/replay`, "POST");
    say("It is handled once more.");
    if (state.view === "dead") await listLetters(-1);
  } catch (error) {
    say(`Not replayed: ${error.message}.`);
  }
}

async function replayAll() {
  try {
    const { replayed } = await ask("dead/replay", "POST");
    say(`${replayed} ${replayed === 1 ? "is" : "are"} handled once more.`);
    await listLetters(-1);
  } catch (error) {
    say(`Not replayed: ${error.message}.`);
  }
}

function open() {
  document.body.classList.add("open");
}

function close() {
  document.body.classList.remove("open");
  list.focus();
}

function show(item) {
  const focused = detail.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = detail.dataset.ref === state.chosen ? detail.scrollTop : 0;
  detail.dataset.ref = state.chosen;
  detail.dataset.version = String(item.version);
  detail.dataset.revealed = String(item.revealed);
  detail.replaceChildren(...parts(item));
  detail.scrollTop = scrolled;
  if (focused) $(focused)?.focus();
}

function parts(item) {
  const canReplay = item.held && !state.readOnly;
  const why = state.readOnly ?? (item.held ? null : "Its body is not held any more.");
  const head = make("div", { class: "head" },
    make("button", { type: "button", class: "back", id: "back", on: close }, "‹ Back"),
    make("h2", {}, item.kind), badge(item.outcome),
    make("div", { class: "acts" },
      make("button", { type: "button", id: "reveal", on: reveal, disabled: !item.held, "aria-pressed": String(item.revealed), "aria-keyshortcuts": "v" }, item.revealed ? "Mask" : "Reveal"),
      make("button", { type: "button", id: "replay", class: "main", on: replay, disabled: !canReplay, title: why, "aria-keyshortcuts": "r" }, "Replay")));
  const nodes = [head];
  const reason = item.unreadable && item.reason !== item.unreadable ? [item.reason, item.unreadable].filter(Boolean).join(": ") : item.reason;
  if (reason) nodes.push(make("p", { class: "reason", "data-outcome": item.outcome }, reason));
  nodes.push(facts(item));
  if (item.problemList.length) nodes.push(make("h3", {}, "Fields that could not be read"), make("ul", { class: "problems" }, ...item.problemList.map((problem) => make("li", {}, problem))));
  if (item.tries.length) nodes.push(make("h3", {}, item.tries.length === 1 ? "Attempt" : "Attempts"), make("ol", { class: "tries" }, ...item.tries.map(attempt)));
  if (item.event) nodes.push(make("h3", {}, "Event"), make("div", { class: "tree" }, tree(item.event)));
  return [...nodes, ...body(item)];
}

function facts(item) {
  const known = [
    ["came", moment(item.at)],
    ["answered", item.status === null ? null : `${item.status} in ${lasting(item.answer)}`],
    ["delivery", item.id],
    ["subscription", item.subscription],
    ["what", item.subject || null],
    ["body", item.size ? `${item.size.toLocaleString("en")} bytes` : null],
    ["content type", item.contentType],
  ];
  return make("dl", { class: "facts" }, ...known.filter(([, value]) => value !== null).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function attempt(one) {
  const runs = one.runs.map((run) => make("li", {},
    make("span", { class: run.error ? "mark bad" : "mark", "aria-label": run.error ? "failed" : "done", role: "img" }, run.took === null ? "…" : run.error ? "✕" : "✓"),
    make("span", { class: "name" }, run.name),
    make("span", { class: "error" }, run.error ?? ""),
    make("span", { class: "took" }, lasting(run.took))));
  return make("li", {},
    make("div", { class: "try" }, make("span", {}, `${one.number}.`), badge(one.outcome ?? "running"), make("span", { class: "took" }, one.took === null ? "" : lasting(one.took))),
    runs.length ? make("ul", { class: "runs" }, ...runs) : null);
}

const isNothing = (node) => (node.leaf === undefined ? (node.pairs ?? node.list).length === 0 : node.kind === "none");

function tree(node) {
  if (node.list) return make("ul", {}, ...node.list.map((value) => branch("– ", value)));
  const said = node.pairs.filter(([, value]) => !isNothing(value)).map(([name, value]) => branch(`${name}: `, value));
  const unsaid = node.pairs.filter(([, value]) => isNothing(value)).map(([name]) => name);
  const rest = unsaid.length ? make("li", { class: "none" }, `none: ${unsaid.join(", ")}`) : null;
  return make("ul", {}, ...said, rest);
}

function branch(name, value) {
  const label = make("span", { class: "name" }, name);
  const isFlat = value.list?.every((one) => one.leaf !== undefined && !one.masked && one.leaf.length < 30);
  if (isFlat) return make("li", {}, label, make("span", { class: "value" }, value.list.map((one) => one.leaf).join(" · ")));
  if (value.leaf === undefined) return make("li", {}, label, tree(value));
  if (value.masked) return make("li", {}, label, make("button", { type: "button", on: reveal, title: "Reveal" }, value.leaf));
  return make("li", {}, label, make("span", { class: value.kind }, value.kind === "none" ? "none" : value.leaf));
}

function body(item) {
  if (!item.held) return [make("h3", {}, "Body"), make("p", { class: "note" }, item.status === null && item.id !== null && item.outcome === "handled" ? "It was dropped when the delivery was handled." : "It is not held.")];
  if (!item.revealed) return [make("h3", {}, "Body"), make("p", { class: "note" }, "Hidden, for it may hold numbers and texts. "), make("button", { type: "button", on: reveal, id: "reveal-body" }, "Reveal it")];
  const flip = (raw) => () => { state.raw = raw; show(item); };
  const isRaw = state.raw || !item.payload;
  return [
    make("div", { class: "switcher" }, make("h3", {}, "Body"),
      make("button", { type: "button", id: "pretty", on: flip(false), disabled: !item.payload, "aria-pressed": String(!isRaw) }, "Pretty"),
      make("button", { type: "button", id: "raw", on: flip(true), "aria-pressed": String(isRaw) }, "Raw")),
    isRaw ? make("pre", { class: "body", tabindex: "0", "aria-label": "The body as it came" }, item.body) : make("div", { class: "tree" }, tree(item.payload)),
  ];
}

// --- what people do -------------------------------------------------------------------------------------------------

function filter() {
  for (const select of Object.values(filters)) select.classList.toggle("set", select.value !== "");
  $("clear").hidden = Object.values(filters).every((select) => !select.value);
  redraw();
}

function clear() {
  for (const select of Object.values(filters)) select.value = "";
  filter();
}

function pause() {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  put($("pause"), state.paused ? "Go on" : "Pause");
  connected($("connection").dataset.how ?? "connecting");
  if (!state.paused && state.view === "all") redraw();
}

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  put($("theme"), `Theme: ${name}`);
}

const SINGLE = {
  j: () => step("down"), k: () => step("up"), v: reveal, r: replay, p: pause, c: clear,
  "/": () => filters.kind.focus(),
  t: () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]),
  1: () => view("all"), 2: () => view("dead"),
  "?": () => $("keys").showModal(),
};
const MOVES = { ArrowDown: "down", ArrowUp: "up", Home: "first", End: "last" };

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const inField = event.target.closest("select, input");
  if (event.key === "Escape") {
    if (inField || document.body.classList.contains("open") || detail.contains(event.target)) close();
    return;
  }
  if (inField) return;
  if (MOVES[event.key] && !detail.contains(event.target)) {
    event.preventDefault();
    step(MOVES[event.key]);
  } else if (event.key === "Enter" && event.target === list && state.chosen !== null) {
    event.preventDefault();
    open();
    detail.focus();
  } else if (Object.hasOwn(SINGLE, event.key) && $("single-keys").checked) {
    event.preventDefault();
    SINGLE[event.key]();
  }
}

document.addEventListener("keydown", pressed);
for (const select of Object.values(filters)) select.addEventListener("change", filter);
$("clear").addEventListener("click", clear);
$("pause").addEventListener("click", pause);
$("help").addEventListener("click", SINGLE["?"]);
$("theme").addEventListener("click", SINGLE.t);
$("view-all").addEventListener("click", () => view("all"));
$("view-dead").addEventListener("click", () => view("dead"));
$("replay-all").addEventListener("click", replayAll);
$("single-keys").checked = localStorage.getItem("single-keys") !== "off";
$("single-keys").addEventListener("change", (event) => localStorage.setItem("single-keys", event.target.checked ? "on" : "off"));

theme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
prepareChart();
counted();
follow();
