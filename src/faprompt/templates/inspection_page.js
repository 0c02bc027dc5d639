"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const MOST_DETAILED = 300; // entries that keep their large pictures
  const REPORT_BYTES = 24e6; // of pictures in an exported report, as base64
  const LARGE_BYTES = 6e6;
  const TRIES = 8; // of a request while the service is full
  const state = { models: [], entries: [], current: -1, pending: 0, overlay: true, heat: false, stream: null, taken: 0 };
  let token = sessionStorage.getItem("token") || "";

  function el(tag, values = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(values)) {
      if (name === "text") node.textContent = value;
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const data = (kind, text) => "data:image/" + kind + ";base64," + text;
  const percent = (share) => Number((100 * share).toPrecision(share < 0.1 ? 2 : 3)) + " %";
  const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
  const model = () => state.models.find((each) => each.id === $("model").value) || state.models[0];

  // --- the service ------------------------------------------------------------------------
  async function ask(path, options = {}) {
    for (let tries = 1; ; tries++) {
      const headers = { ...(options.headers || {}), ...(token ? { authorization: "Bearer " + token } : {}) };
      const answer = await fetch(path, { ...options, headers });
      if (answer.status === 401) await askToken();
      else if (answer.status !== 503 || tries === TRIES) return answer;
      else await wait(Number(answer.headers.get("retry-after")) || 1);
    }
  }

  let asking = null;
  function askToken() {
    if (asking) return asking;
    asking = new Promise((done) => {
      $("token").value = "";
      $("ask").showModal();
      $("ask").addEventListener("close", () => {
        token = $("token").value.trim();
        sessionStorage.setItem("token", token);
        asking = null;
        done();
      }, { once: true });
    });
    return asking;
  }

  async function reason(answer) {
    try {
      return (await answer.json()).detail;
    } catch {
      return "The service answered " + answer.status + ".";
    }
  }

  // --- pictures come in -------------------------------------------------------------------
  function uniqueName(name) {
    const used = new Set(state.entries.map((entry) => entry.name));
    let found = name;
    for (let n = 2; used.has(found); n++) found = name + " (" + n + ")";
    return found;
  }

  const queue = [];
  function add(files) {
    if (files.length && model().products.length && !$("product").value) {
      $("said").textContent = "Choose the product first; then give the pictures again.";
      $("product").focus();
      return;
    }
    for (const file of files) {
      const name = uniqueName((file.name || "picture").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ").slice(0, 200));
      const entry = { name, file, model: model().id, modelName: model().name, product: $("product").value || null, status: "waiting" };
      state.entries.push(entry);
      queue.push(entry);
    }
    if (files.length) show(state.entries.length - files.length);
    while (state.pending < 2 && queue.length) work();
  }

  async function work() {
    state.pending++;
    while (queue.length) await judge(queue.shift());
    state.pending--;
  }

  async function judge(entry) {
    const options = new URLSearchParams({ model: entry.model, name: entry.name, view: "true" });
    if (entry.product) options.set("product", entry.product);
    try {
      const answer = await ask("v1/predict?" + options, { method: "POST", body: entry.file, headers: { "content-type": "application/octet-stream" } });
      if (answer.ok) take(entry, await answer.json());
      else fail(entry, await reason(answer));
    } catch (error) {
      fail(entry, "The service cannot be reached.");
    }
    delete entry.file;
    forgetOld();
    render();
  }

  function take(entry, found) {
    for (const kind of ["small", "layer", "large", "heat"]) {
      entry[kind] = found[kind + "_base64"] || null;
      delete found[kind + "_base64"];
    }
    entry.row = { ...found, path: entry.name };
    entry.status = found.verdict || "none";
  }

  function fail(entry, said) {
    entry.status = "error";
    entry.row = { path: entry.name, model: entry.modelName, status: "error", error: said, regions: [], notes: [] };
  }

  function forgetOld() {
    for (const entry of state.entries.slice(0, -MOST_DETAILED)) entry.large = entry.heat = null;
  }

  // --- what is shown ----------------------------------------------------------------------
  function show(index) {
    if (index < 0 || index >= state.entries.length) return;
    state.current = index;
    render();
  }

  const SHOWN = { waiting: "…", none: "no verdict", error: "unreadable" };
  const labelOf = (entry) => SHOWN[entry.status] || entry.status;
  const classOf = (entry) => (["OK", "REVIEW", "NG"].includes(entry.status) ? entry.status.toLowerCase() : "");

  function inWords(row) {
    if (row.status === "error") return row.error;
    const p = row.p_value;
    if (p === null) return row.verdict ? "" : "The model has no threshold.";
    if (p > 0.1) return "Like " + percent(p) + " of good parts.";
    return "Rarer than 1 in " + Math.floor(1 / p + 1e-9).toLocaleString("en") + " good parts.";
  }

  function render() {
    const entry = state.entries[state.current];
    const row = entry && entry.row;
    const isScored = Boolean(row && row.status === "ok");
    $("invite").hidden = Boolean(entry) || Boolean(state.stream);
    $("video").hidden = !state.stream;
    $("frame").hidden = Boolean(state.stream) || !isScored;
    $("blank").hidden = !entry || isScored || Boolean(state.stream);
    $("blank").textContent = row ? "This file cannot be shown." : "Waiting for the service …";
    renderVerdict(entry, row);
    if (isScored) renderPicture(entry, row);
    renderDetails(entry, row, isScored);
    renderHistory();
    $("overlay").disabled = !(isScored && entry.layer && row.regions.length);
    $("map").disabled = !(isScored && entry.heat);
    $("next").disabled = !state.stream && state.current >= state.entries.length - 1;
    $("export").disabled = !state.entries.some((each) => each.row);
    $("shoot").hidden = !state.stream;
    $("camera").textContent = state.stream ? "Close camera" : "Camera";
  }

  function renderVerdict(entry, row) {
    const word = !entry ? "No picture yet" : entry.status === "waiting" ? "Judging …" : entry.status === "none" ? "No verdict" : entry.status === "error" ? "Unreadable" : entry.status;
    $("verdict").className = entry ? classOf(entry) : "";
    $("word").textContent = word;
    $("word").className = word.length > 6 ? "long" : "";
    $("said").textContent = row ? inWords(row) : "";
  }

  function renderPicture(entry, row) {
    $("frame").style.setProperty("--shape", row.width / row.height);
    $("picture").src = data("jpeg", entry.large || entry.small);
    $("heat").hidden = !(state.heat && entry.heat);
    $("outlines").hidden = !(state.overlay && entry.layer && row.regions.length);
    if (entry.heat) $("heat").src = data("png", entry.heat);
    if (entry.layer) $("outlines").src = data("png", entry.layer);
  }

  function renderDetails(entry, row, isScored) {
    $("score").textContent = isScored ? row.score.toFixed(4) : "–";
    $("name").textContent = entry ? entry.name + (row && row.product ? " · " + row.product : "") : "";
    const marks = !isScored ? [] : [["review-limit", row.review_threshold], ["limit", row.threshold], ["score", row.score]];
    $("meter").replaceChildren(...marks.filter(([, at]) => at !== null && at !== undefined).map(([name, at]) => {
      const mark = el("i", { class: name });
      mark.style.left = 100 * at + "%";
      return mark;
    }));
    $("meter").hidden = !isScored;
    const limits = isScored ? [["NG above ", row.threshold], ["REVIEW above ", row.review_threshold]] : [];
    $("limits").textContent = limits.filter(([, at]) => at !== null).map(([said, at]) => said + at.toFixed(4)).join(", ");
    const facts = entry ? state.models.find((each) => each.id === entry.model) : model();
    $("rules").textContent = facts ? facts.rules.join(" ") : "";
    const regions = isScored ? row.regions : [];
    $("regionBox").hidden = !regions.length;
    $("regions").replaceChildren(...regions.slice(0, 6).map((region) => {
      const [x0, y0, x1, y1] = region.bbox;
      return el("li", {}, el("span", { text: x1 - x0 + " × " + (y1 - y0) + " px at " + x0 + ", " + y0 }), el("span", { class: "hint", text: "peak " + region.peak.toFixed(2) }));
    }), ...(regions.length > 6 ? [el("li", { class: "hint", text: "and " + (regions.length - 6) + " more" })] : []));
    const notes = isScored ? row.notes : [];
    $("noteBox").hidden = !notes.length;
    $("notes").textContent = notes.join("; ");
  }

  function renderHistory() {
    const counts = ["NG", "REVIEW", "OK", "none", "error"].map((name) => [name, state.entries.filter((entry) => entry.status === name).length]);
    $("counts").replaceChildren(...counts.filter(([, count]) => count).map(([name, count]) =>
      el("li", { class: "chip " + (SHOWN[name] ? "" : name.toLowerCase()), "data-count": name, text: count + " " + (SHOWN[name] || name) })));
    const list = $("history");
    while (list.children.length < state.entries.length) {
      const index = list.children.length;
      const button = el("button", { type: "button" }, el("span", { class: "pic" }), el("span", { class: "chip" }));
      button.addEventListener("click", () => show(index));
      list.append(el("li", {}, button));
    }
    state.entries.forEach((entry, index) => {
      const button = list.children[index].firstElementChild;
      const [picture, chip] = button.children;
      button.setAttribute("aria-current", String(index === state.current));
      button.setAttribute("aria-label", entry.name + ", " + labelOf(entry));
      button.title = entry.name;
      if (entry.small && !picture.firstElementChild) picture.append(el("img", { alt: "", src: data("jpeg", entry.small) }));
      chip.className = "chip " + classOf(entry);
      chip.textContent = labelOf(entry);
    });
    const current = list.children[state.current];
    if (current) list.scrollLeft = current.offsetLeft - list.offsetLeft - list.clientWidth / 2 + current.clientWidth / 2;
  }

  // --- camera -----------------------------------------------------------------------------
  async function toggleCamera() {
    if (state.stream) return closeCamera();
    if (!navigator.mediaDevices) return $("capture").click(); // without https: the camera's own app
    try {
      state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } } });
      $("video").srcObject = state.stream;
    } catch (error) {
      $("said").textContent = "The camera cannot be used: " + error.message;
      return;
    }
    render();
  }

  function closeCamera() {
    if (state.stream) state.stream.getTracks().forEach((track) => track.stop());
    state.stream = null;
    $("video").srcObject = null;
    render();
  }

  async function shoot() {
    const video = $("video");
    if (!video.videoWidth) return;
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/png")); // loses nothing
    state.taken++;
    add([new File([blob], "camera-" + String(state.taken).padStart(3, "0") + ".png")]);
  }

  function next() {
    if (state.stream) shoot();
    else show(state.current + 1);
  }

  // --- export -----------------------------------------------------------------------------
  function reportPictures(entries) {
    let left = REPORT_BYTES;
    let largeLeft = LARGE_BYTES;
    return entries.map((entry) => {
      const item = { row: entry.row };
      for (const kind of ["small", "layer"]) {
        left -= (entry[kind] || "").length;
        if (entry[kind] && left > 0) item[kind + "_base64"] = entry[kind];
      }
      if (entry.large && ["NG", "REVIEW", "none"].includes(entry.status)) {
        largeLeft -= entry.large.length;
        if (largeLeft > 0) item.large_base64 = entry.large;
      }
      return item;
    });
  }

  async function exportReport() {
    const chosen = (state.entries[state.current] || {}).model || model().id;
    const entries = state.entries.filter((entry) => entry.row && entry.model === chosen);
    $("export").disabled = true;
    try {
      const body = JSON.stringify({ model: chosen, title: $("title").value.trim() || "Inspection session", pictures: reportPictures(entries) });
      const answer = await ask("v1/report", { method: "POST", body, headers: { "content-type": "application/json" } });
      if (!answer.ok) throw new Error(await reason(answer));
      const url = URL.createObjectURL(await answer.blob());
      const stamp = new Date().toISOString().slice(0, 16).replace(/[:T]/g, "-");
      el("a", { href: url, download: "inspection-" + stamp + ".html" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    } catch (error) {
      $("said").textContent = "The report could not be made: " + error.message;
    }
    $("export").disabled = false;
  }

  // --- events -----------------------------------------------------------------------------
  function toggle(name) {
    state[name] = !state[name];
    $("overlay").setAttribute("aria-pressed", String(state.overlay));
    $("map").setAttribute("aria-pressed", String(state.heat));
    render();
  }

  function chooseModel() {
    const facts = model();
    $("productField").hidden = !facts.products.length;
    const none = facts.products.length > 1 ? [el("option", { value: "", text: "choose …" })] : [];
    $("product").replaceChildren(...none, ...facts.products.map((name) => el("option", { value: name, text: name })));
    render();
  }

  const clicks = { choose: () => $("files").click(), camera: toggleCamera, shoot, overlay: () => toggle("overlay"), map: () => toggle("heat"), next, export: exportReport };
  for (const [id, act] of Object.entries(clicks)) {
    $(id).addEventListener("click", (event) => {
      if (event.detail) $(id).blur(); // so that the space key means "next" after a click
      act();
    });
  }
  for (const id of ["files", "capture"]) {
    $(id).addEventListener("change", () => {
      add([...$(id).files]);
      $(id).value = "";
    });
  }
  $("model").addEventListener("change", chooseModel);
  document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("stage").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("stage").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("stage").classList.remove("over");
    add([...event.dataTransfer.files]);
  });
  const keys = { " ": next, ArrowRight: () => show(state.current + 1), ArrowLeft: () => show(state.current - 1), o: () => toggle("overlay"), h: () => toggle("heat") };
  document.addEventListener("keydown", (event) => {
    const within = event.target.closest("input, select, dialog, button");
    if (within && (event.key === " " || within.tagName !== "BUTTON")) return;
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("beforeunload", (event) => {
    if (state.entries.length) event.preventDefault();
  });

  async function start() {
    const answer = await ask("v1/models");
    if (!answer.ok) throw new Error(await reason(answer));
    state.models = (await answer.json()).models;
    $("model").replaceChildren(...state.models.map((each) => el("option", { value: each.id, text: each.id })));
    $("modelField").hidden = state.models.length < 2;
    chooseModel();
    document.body.dataset.ready = "";
  }
  start().catch((error) => { $("said").textContent = "The service cannot be reached: " + error.message; });
})();
