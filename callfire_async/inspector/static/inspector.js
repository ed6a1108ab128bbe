// The inspector's page. Data from outside becomes text, never markup: this script does not use innerHTML, and the page's
// Content-Security-Policy forbids it.

const MAX_ROWS = 1000;
const OUTCOMES = [
  "waiting", "running", "handled", "split", "failed", "dead", "refused", "duplicate", "unhandled", "released", "lost",
  "cancelled",
];
const SVG = "http://www.w3.org/2000/svg";
const ANNOUNCE_INTERVAL_MS = 5000;

const $ = (id) => document.getElementById(id);
const list = $("list");
const detail = $("detail");

// --- the key: moved from the URL to the memory of this tab, where other pages and programs cannot read it ----------

function readKey() {
  const fragment = location.hash.slice(1);
  if (fragment && fragment !== "list") {
    sessionStorage.setItem("key", fragment);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("key") ?? "";
}

const key = readKey();

async function callApi(path, method = "GET") {
  const response = await fetch(`api/${path}`, { method, headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
  const result = await response.json();
  if (!response.ok) throw new Error(result.error ?? `status ${response.status}`);
  return result;
}

// --- helpers --------------------------------------------------------------------------------------------------------

function createNode(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") node.className = value;
    else if (name === "on") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const badge = (outcome) => createNode("span", { class: "badge", "data-outcome": outcome }, outcome);

function formatClock(at) {
  const time = new Date(at * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function formatTime(at) {
  const day = new Date(at * 1000).toLocaleDateString();
  return day === new Date().toLocaleDateString() ? formatClock(at) : `${day} ${formatClock(at)}`;
}

function formatDuration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1000) return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// --- state ----------------------------------------------------------------------------------------------------------

const state = {
  history: "",
  cursor: "",
  readOnly: null,
  items: new Map(), // by reference
  deadLetters: new Map(), // by reference, only in the view of dead letters
  deadLetterCount: -1,
  view: "all",
  selected: null,
  revealed: null,
  raw: false,
  paused: false,
  dirty: new Set(),
  isDrawScheduled: false,
  newDeliveries: 0,
  newDeadLetters: 0,
};
const rows = new Map(); // elements, by reference
const filterValues = { kind: new Set(), subscription: new Set() };

const filters = { kind: $("filter-kind"), subscription: $("filter-subscription"), outcome: $("filter-outcome") };
for (const outcome of OUTCOMES) filters.outcome.append(createNode("option", { value: outcome }, outcome));

function matches(item) {
  const values = { kind: item.kind, subscription: sourceOf(item), outcome: item.outcome };
  return Object.entries(filters).every(([name, select]) => !select.value || values[name] === select.value);
}

// A subscription and a webhook may have the same ID.
function sourceOf(item) {
  return item.webhook === null ? item.subscription : `webhook ${item.webhook}`;
}

function currentItems() {
  return state.view === "all" ? state.items : state.deadLetters;
}

// --- live updates ---------------------------------------------------------------------------------------------------

async function followEvents() {
  let wait = 500;
  for (;;) {
    try {
      const response = await fetch(`api/events?after=${encodeURIComponent(state.cursor)}`, {
        headers: { Authorization: `Bearer ${key}` }, cache: "no-store",
      });
      if (response.status === 401) {
        showConnection("locked");
        notify("Open the URL that the command printed: it contains the key.");
        return;
      }
      if (!response.ok) throw new Error();
      wait = 500;
      showConnection("live");
      await readMessages(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // The server may come back.
    }
    showConnection("reconnecting");
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(5000, wait * 2);
  }
}

async function readMessages(reader) {
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) receiveMessage(message);
  }
}

function receiveMessage(text) {
  const lines = Object.fromEntries(text.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]));
  const message = JSON.parse(lines.data);
  if (message.history !== state.history) reset(message.history);
  state.cursor = lines.id;
  for (const item of message.items) storeItem(item);
  if (message.minute) updateOverview(message);
  scheduleDraw();
}

function reset(history) {
  state.history = history;
  state.items.clear();
  for (const row of rows.values()) row.remove();
  rows.clear();
  state.dirty.clear();
  state.deadLetterCount = -1;
  // The numbers of a new history start at 1 again: the selected number would mean a different delivery.
  if (state.selected?.startsWith("deliveries/")) clearSelection();
}

function storeItem(item) {
  item.ref = `deliveries/${item.number}`;
  const before = state.items.get(item.ref);
  if (!before) state.newDeliveries += 1;
  if (item.outcome === "dead" && before?.outcome !== "dead") state.newDeadLetters += 1;
  state.items.set(item.ref, item);
  state.dirty.add(item.ref);
  addFilterOption("kind", item.kind, item.kind);
  addFilterOption("subscription", sourceOf(item), item.webhook === null ? `subscription ${item.subscription}` : sourceOf(item));
  if (state.items.size > MAX_ROWS) removeItem(state.items.keys().next().value);
}

function removeItem(ref) {
  state.items.delete(ref);
  state.dirty.delete(ref);
  if (state.view === "all") removeRow(ref);
}

function addFilterOption(name, value, label) {
  if (value === null || filterValues[name].has(value) || filterValues[name].size >= 100) return;
  filterValues[name].add(value);
  filters[name].append(createNode("option", { value }, label));
}

function showConnection(status) {
  const shown = status === "live" && state.paused ? "paused" : status;
  const connection = $("connection");
  connection.dataset.status = status;
  connection.dataset.state = shown;
  setText(connection, shown);
}

// --- the last minute ------------------------------------------------------------------------------------------------

function updateOverview(message) {
  setText($("title"), `· ${message.title}`);
  state.readOnly = message.readOnly;
  const received = message.minute.reduce((sum, [count]) => sum + count, 0);
  const latencies = message.minute.map((second) => second[2]).filter((value) => value !== null);
  const maxLatency = latencies.length ? Math.max(...latencies) : null;
  const isSlow = received < message.minute.length;
  setText($("rate"), isSlow ? String(received) : (received / message.minute.length).toFixed(received < 600 ? 1 : 0));
  setText($("rate-unit"), isSlow ? "per minute" : "per second");
  setText($("latency"), formatDuration(maxLatency));
  setText($("waiting"), message.counts.waiting === undefined ? "–" : message.counts.waiting.toLocaleString("en"));
  const dead = message.counts.dead;
  setText($("dead"), dead === undefined ? "–" : dead.toLocaleString("en"));
  $("dead").dataset.some = String(dead > 0);
  setText($("view-dead"), dead ? `Dead letters ${dead.toLocaleString("en")}` : "Dead letters");
  drawChart(message.minute, received, maxLatency);
  if (state.view === "dead" && dead !== state.deadLetterCount) listDeadLetters(dead);
  announce();
}

const bars = [];
let line = null;

function prepareChart() {
  const svg = $("chart");
  for (let number = 0; number < 60; number += 1) {
    const pair = ["received", "failed"].map((name) => {
      const bar = document.createElementNS(SVG, "rect");
      for (const [attribute, value] of Object.entries({ class: name, x: number * 10 + 1, width: 8, y: 71, height: 0, rx: 1.5 })) bar.setAttribute(attribute, value);
      svg.append(bar);
      return bar;
    });
    bars.push(pair);
  }
  const axis = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ class: "axis", x1: 0, x2: 600, y1: 71.5, y2: 71.5 })) axis.setAttribute(name, value);
  line = document.createElementNS(SVG, "path");
  line.setAttribute("class", "latency");
  svg.append(axis, line);
}

function drawChart(minute, received, maxLatency) {
  const peak = Math.max(1, ...minute.map(([count]) => count));
  const barHeight = (count) => (count === 0 ? 0 : Math.max(2, (count / peak) * 68));
  minute.forEach(([count, failed], number) => {
    [count, failed].forEach((value, index) => {
      const height = barHeight(Math.min(value, peak));
      bars[number][index].setAttribute("height", height);
      bars[number][index].setAttribute("y", 71 - height);
    });
  });
  let path = "";
  let drawing = false;
  minute.forEach(([, , latency], number) => {
    if (latency === null) { drawing = false; return; }
    path += `${drawing ? "L" : "M"}${number * 10 + 5} ${(68 - (latency / (maxLatency || 1)) * 60).toFixed(1)}`;
    if (!drawing) path += "h.01";
    drawing = true;
  });
  line.setAttribute("d", path);
  setText($("scale"), received ? `up to ${peak.toLocaleString("en")} per second · ${formatDuration(maxLatency)}` : "last minute");
  const description = received ? `Last minute: ${received} received, up to ${peak} per second, p95 latency ${formatDuration(maxLatency)}.` : "No deliveries in the last minute.";
  if ($("chart").getAttribute("aria-label") !== description) $("chart").setAttribute("aria-label", description);
}

let announcedAt = performance.now();

function announce() {
  if (!state.newDeliveries || performance.now() - announcedAt < ANNOUNCE_INTERVAL_MS) return;
  const deadLetters = state.newDeadLetters ? `, ${state.newDeadLetters} dead letters` : "";
  setText($("announcer"), `${state.newDeliveries} new deliveries${deadLetters}.`);
  state.newDeliveries = state.newDeadLetters = 0;
  announcedAt = performance.now();
}

let toastTimer = 0;

function notify(text) {
  setText($("toast"), text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => setText($("toast"), ""), 5000);
}

// --- the list -------------------------------------------------------------------------------------------------------

function scheduleDraw() {
  if (state.isDrawScheduled || state.paused) return;
  state.isDrawScheduled = true;
  requestAnimationFrame(() => {
    state.isDrawScheduled = false;
    for (const ref of state.dirty) {
      if (state.view === "all") updateRow(state.items.get(ref));
      if (ref === state.selected) scheduleLoad();
    }
    state.dirty.clear();
    updateCount();
  });
}

function updateRow(item) {
  const row = rows.get(item.ref);
  if (!matches(item)) removeRow(item.ref);
  else if (row) fillRow(row, item);
  else insertRow(item);
}

function insertRow(item) {
  const row = createNode("div", { class: "row new", role: "option", id: `row-${item.ref.replace(/[^\w]/g, "-")}` },
    createNode("span", { class: "badge" }),
    createNode("span", { class: "title" }, createNode("span", { class: "kind" }), " ", createNode("span", { class: "subject" })),
    createNode("span", { class: "subscription" }),
    createNode("span", { class: "time" }),
    createNode("span", { class: "reason-line" }));
  row.item = item;
  row.addEventListener("click", () => { selectItem(item.ref); openDetail(); });
  fillRow(row, item);
  rows.set(item.ref, row);
  // Newest first.
  let next = list.firstElementChild;
  while (next && next.item.number > item.number) next = next.nextElementSibling;
  list.insertBefore(row, next);
  row.setAttribute("aria-selected", String(item.ref === state.selected));
}

function fillRow(row, item) {
  row.item = item;
  const [outcome, title, subscription, time, reason] = row.children;
  if (outcome.dataset.outcome !== item.outcome) outcome.dataset.outcome = item.outcome;
  setText(outcome, item.outcome);
  setText(title.children[0], item.kind);
  setText(title.children[1], item.subject);
  setText(subscription, item.subscription !== null ? `#${item.subscription}` : item.webhook !== null ? `webhook #${item.webhook}` : "");
  setText(time, formatClock(item.receivedAt));
  const problems = item.problemCount ? `${item.problemCount} unreadable ${item.problemCount === 1 ? "field" : "fields"}` : "";
  const attempts = item.attemptCount > 1 ? `attempt ${item.attemptCount}` : "";
  setText(reason, [item.reason, attempts, problems].filter(Boolean).join(" · "));
}

function removeRow(ref) {
  rows.get(ref)?.remove();
  rows.delete(ref);
}

function redrawList() {
  for (const row of rows.values()) row.remove();
  rows.clear();
  const shown = [...currentItems().values()].filter((item) => state.view === "dead" || matches(item));
  for (const item of shown.sort((a, b) => a.number - b.number)) insertRow(item);
  for (const row of rows.values()) row.classList.remove("new");
  state.dirty.clear();
  updateCount();
}

function updateCount() {
  const all = currentItems().size;
  const count = rows.size === all ? `${all.toLocaleString("en")}` : `${rows.size.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  setText($("shown"), all ? count : "");
  const placeholder = state.view === "dead" ? "No dead letters." : all ? "No deliveries match the filters." : "No deliveries yet. New deliveries appear here as they arrive.";
  setText($("empty"), placeholder);
}

function selectItem(ref) {
  if (state.selected === ref) return;
  rows.get(state.selected)?.setAttribute("aria-selected", "false");
  state.selected = ref;
  state.revealed = null;
  state.raw = false;
  const row = rows.get(ref);
  if (row) {
    row.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
  }
  scheduleLoad(60);
}

function clearSelection() {
  clearTimeout(loadTimer);
  state.selected = state.revealed = null;
  list.removeAttribute("aria-activedescendant");
  detail.replaceChildren(createNode("p", { class: "placeholder" }, "Select a delivery to see its event and its attempts."));
  document.body.classList.remove("open");
}

function moveSelection(to) {
  const row = rows.get(state.selected);
  const target = { first: list.firstElementChild, last: list.lastElementChild,
    down: row ? row.nextElementSibling : list.firstElementChild,
    up: row ? row.previousElementSibling : list.firstElementChild }[to];
  if (target) selectItem(target.item.ref);
}

async function listDeadLetters(count) {
  state.deadLetterCount = count;
  try {
    const { items } = await callApi("dead-letters");
    state.deadLetters = new Map(items.map((item, index) => [`dead-letters/${encodeURIComponent(item.id)}`, { ...item, number: items.length - index }]));
    for (const [ref, item] of state.deadLetters) item.ref = ref;
    $("replay-all").hidden = state.view !== "dead" || !items.length;
    $("replay-all").disabled = state.readOnly !== null;
    if (state.view === "dead") redrawList();
  } catch (error) {
    notify(error.message);
  }
}

function showView(name) {
  state.view = name;
  $("view-all").setAttribute("aria-pressed", String(name === "all"));
  $("view-dead").setAttribute("aria-pressed", String(name === "dead"));
  document.querySelector(".filters").hidden = name === "dead";
  list.setAttribute("aria-label", name === "dead" ? "Dead letters, newest first" : "Deliveries, newest first");
  $("replay-all").hidden = true;
  state.deadLetters = new Map();
  redrawList();
  if (name === "dead") listDeadLetters(-1);
}

// --- the selected delivery ------------------------------------------------------------------------------------------

let loadTimer = 0;

function scheduleLoad(after = 250) {
  clearTimeout(loadTimer);
  loadTimer = setTimeout(loadDetail, after);
}

async function loadDetail() {
  const ref = state.selected;
  if (ref === null) return;
  try {
    const shown = state.revealed === ref ? await callApi(`${ref}/reveal`, "POST") : await callApi(ref);
    if (ref === state.selected) showDetail(shown);
  } catch (error) {
    if (ref === state.selected) notify(error.message);
  }
}

async function toggleReveal() {
  if (state.selected === null) return;
  state.revealed = state.revealed === state.selected ? null : state.selected;
  await loadDetail();
}

// The second click of a double click, or a key that is held down, would replay a delivery again.
async function replaySelected(event) {
  if (state.selected === null || event.detail > 1 || event.repeat) return;
  if (state.readOnly) { notify(state.readOnly); return; }
  try {
    await callApi(`${state.selected}/replay`, "POST");
    notify("Replayed.");
    if (state.view === "dead") await listDeadLetters(-1);
  } catch (error) {
    notify(`Replay failed: ${error.message}.`);
  }
}

async function replayAll() {
  try {
    const { replayed } = await callApi("dead-letters/replay", "POST");
    notify(`${replayed} replayed.`);
    await listDeadLetters(-1);
  } catch (error) {
    notify(`Replay failed: ${error.message}.`);
  }
}

function openDetail() {
  document.body.classList.add("open");
}

function closeDetail() {
  document.body.classList.remove("open");
  list.focus();
}

function showDetail(item) {
  const focused = detail.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = detail.dataset.ref === state.selected ? detail.scrollTop : 0;
  detail.dataset.ref = state.selected;
  detail.dataset.version = String(item.version);
  detail.dataset.revealed = String(item.revealed);
  detail.replaceChildren(...detailNodes(item));
  detail.scrollTop = scrolled;
  if (focused) $(focused)?.focus();
}

function detailNodes(item) {
  const canReplay = item.hasBody && !state.readOnly;
  const replayProblem = state.readOnly ?? (item.hasBody ? null : "The body is no longer available.");
  const head = createNode("div", { class: "head" },
    createNode("button", { type: "button", class: "back", id: "back", on: closeDetail }, "‹ Back"),
    createNode("h2", {}, item.kind), badge(item.outcome),
    createNode("div", { class: "actions" },
      createNode("button", { type: "button", id: "reveal", on: toggleReveal, disabled: !item.hasBody, "aria-pressed": String(item.revealed), "aria-keyshortcuts": "v" }, item.revealed ? "Mask" : "Reveal"),
      createNode("button", { type: "button", id: "replay", class: "main", on: replaySelected, disabled: !canReplay, title: replayProblem, "aria-keyshortcuts": "r" }, "Replay")));
  const nodes = [head];
  const reason = item.parseError && item.reason !== item.parseError ? [item.reason, item.parseError].filter(Boolean).join(": ") : item.reason;
  if (reason) nodes.push(createNode("p", { class: "reason", "data-outcome": item.outcome }, reason));
  nodes.push(factsNode(item));
  if (item.problems.length) nodes.push(createNode("h3", {}, "Unreadable fields"), createNode("ul", { class: "problems" }, ...item.problems.map((problem) => createNode("li", {}, problem))));
  if (item.attempts.length) nodes.push(createNode("h3", {}, item.attempts.length === 1 ? "Attempt" : "Attempts"), createNode("ol", { class: "attempts" }, ...item.attempts.map(attemptNode)));
  if (item.event) nodes.push(createNode("h3", {}, "Event"), createNode("div", { class: "tree" }, treeNode(item.event)));
  return [...nodes, ...bodyNodes(item)];
}

function factsNode(item) {
  const fields = [
    ["received", formatTime(item.receivedAt)],
    ["response", item.status === null ? null : `${item.status} in ${formatDuration(item.responseMs)}`],
    ["delivery", item.id],
    ["subscription", item.subscription],
    ["webhook", item.webhook],
    ["subject", item.subject || null],
    ["body", item.bodySize ? `${item.bodySize.toLocaleString("en")} bytes` : null],
    ["content type", item.contentType],
  ];
  return createNode("dl", { class: "facts" }, ...fields.filter(([, value]) => value !== null).map(([name, value]) => createNode("div", {}, createNode("dt", {}, name), createNode("dd", {}, value))));
}

function attemptNode(attempt) {
  const handlers = attempt.handlers.map((run) => createNode("li", {},
    createNode("span", { class: run.error ? "mark bad" : "mark", "aria-label": run.error ? "failed" : "done", role: "img" }, run.durationMs === null ? "…" : run.error ? "✕" : "✓"),
    createNode("span", { class: "name" }, run.name),
    createNode("span", { class: "error" }, run.error ?? ""),
    createNode("span", { class: "duration" }, formatDuration(run.durationMs))));
  return createNode("li", {},
    createNode("div", { class: "attempt" }, createNode("span", {}, `${attempt.number}.`), badge(attempt.outcome ?? "running"), createNode("span", { class: "duration" }, attempt.durationMs === null ? "" : formatDuration(attempt.durationMs))),
    handlers.length ? createNode("ul", { class: "handlers" }, ...handlers) : null);
}

const isEmpty = (node) => (node.leaf === undefined ? (node.pairs ?? node.list).length === 0 : node.kind === "none");

function treeNode(node) {
  if (node.list) return createNode("ul", {}, ...node.list.map((value) => branchNode("– ", value)));
  const present = node.pairs.filter(([, value]) => !isEmpty(value)).map(([name, value]) => branchNode(`${name}: `, value));
  const empty = node.pairs.filter(([, value]) => isEmpty(value)).map(([name]) => name);
  const rest = empty.length ? createNode("li", { class: "none" }, `empty: ${empty.join(", ")}`) : null;
  return createNode("ul", {}, ...present, rest);
}

function branchNode(name, value) {
  const label = createNode("span", { class: "name" }, name);
  const isFlat = value.list?.every((item) => item.leaf !== undefined && !item.masked && item.leaf.length < 30);
  if (isFlat) return createNode("li", {}, label, createNode("span", { class: "value" }, value.list.map((item) => item.leaf).join(" · ")));
  if (value.leaf === undefined) return createNode("li", {}, label, treeNode(value));
  if (value.masked) return createNode("li", {}, label, createNode("button", { type: "button", on: toggleReveal, title: "Reveal" }, value.leaf));
  return createNode("li", {}, label, createNode("span", { class: value.kind }, value.kind === "none" ? "none" : value.leaf));
}

function bodyNodes(item) {
  if (!item.hasBody) return [createNode("h3", {}, "Body"), createNode("p", { class: "note" }, item.status === null && item.id !== null && item.outcome === "handled" ? "The inbox dropped the body when the delivery was handled." : "The body is not available.")];
  if (!item.revealed) return [createNode("h3", {}, "Body"), createNode("p", { class: "note" }, "Hidden: the body may contain phone numbers and messages. "), createNode("button", { type: "button", on: toggleReveal, id: "reveal-body" }, "Reveal body")];
  const flip = (raw) => () => { state.raw = raw; showDetail(item); };
  const isRaw = state.raw || !item.payload;
  return [
    createNode("div", { class: "switcher" }, createNode("h3", {}, "Body"),
      createNode("button", { type: "button", id: "pretty", on: flip(false), disabled: !item.payload, "aria-pressed": String(!isRaw) }, "Pretty"),
      createNode("button", { type: "button", id: "raw", on: flip(true), "aria-pressed": String(isRaw) }, "Raw")),
    isRaw ? createNode("pre", { class: "body", tabindex: "0", "aria-label": "Raw body" }, item.body) : createNode("div", { class: "tree" }, treeNode(item.payload)),
  ];
}

// --- user actions ---------------------------------------------------------------------------------------------------

function applyFilters() {
  for (const select of Object.values(filters)) select.classList.toggle("set", select.value !== "");
  $("clear").hidden = Object.values(filters).every((select) => !select.value);
  redrawList();
}

function clearFilters() {
  for (const select of Object.values(filters)) select.value = "";
  applyFilters();
}

function togglePause() {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  setText($("pause"), state.paused ? "Resume" : "Pause");
  showConnection($("connection").dataset.status ?? "connecting");
  if (!state.paused && state.view === "all") redrawList();
}

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  setText($("theme"), `Theme: ${name}`);
}

const SHORTCUTS = {
  j: () => moveSelection("down"), k: () => moveSelection("up"), v: toggleReveal, r: replaySelected, p: togglePause, c: clearFilters,
  "/": () => filters.kind.focus(),
  t: () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]),
  1: () => showView("all"), 2: () => showView("dead"),
  "?": () => $("keys").showModal(),
};
const MOVES = { ArrowDown: "down", ArrowUp: "up", Home: "first", End: "last" };

function onKeyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const inField = event.target.closest("select, input");
  if (event.key === "Escape") {
    if (inField || document.body.classList.contains("open") || detail.contains(event.target)) closeDetail();
    return;
  }
  if (inField) return;
  if (MOVES[event.key] && !detail.contains(event.target)) {
    event.preventDefault();
    moveSelection(MOVES[event.key]);
  } else if (event.key === "Enter" && event.target === list && state.selected !== null) {
    event.preventDefault();
    openDetail();
    detail.focus();
  } else if (Object.hasOwn(SHORTCUTS, event.key) && $("single-keys").checked) {
    event.preventDefault();
    SHORTCUTS[event.key](event);
  }
}

document.addEventListener("keydown", onKeyDown);
for (const select of Object.values(filters)) select.addEventListener("change", applyFilters);
$("clear").addEventListener("click", clearFilters);
$("pause").addEventListener("click", togglePause);
$("help").addEventListener("click", SHORTCUTS["?"]);
$("theme").addEventListener("click", SHORTCUTS.t);
$("view-all").addEventListener("click", () => showView("all"));
$("view-dead").addEventListener("click", () => showView("dead"));
$("replay-all").addEventListener("click", replayAll);
$("single-keys").checked = localStorage.getItem("single-keys") !== "off";
$("single-keys").addEventListener("change", (event) => localStorage.setItem("single-keys", event.target.checked ? "on" : "off"));

setTheme(THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto");
prepareChart();
updateCount();
followEvents();
