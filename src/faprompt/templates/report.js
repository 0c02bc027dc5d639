"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  $("data").remove();
  const { rows, steps, products, byRate } = data;
  const start = steps.findIndex((step) => step.start);
  const state = { step: start, verdict: "all", product: "", text: "", sort: "high" };
  const several = products.length > 1;
  const EPSILON = 1e-9;
  const NAMES = ["NG", "REVIEW", "OK", "none"];
  const number = (n) => n.toLocaleString("en");
  const plural = (n, word) => number(n) + " " + word + (n === 1 ? "" : "s");
  const percent = (share) => Number((100 * share).toPrecision(share < 0.1 ? 2 : 3)) + " %";
  const named = (verdict) => (verdict === "none" ? "no verdict" : verdict);

  function element(node, values, children) {
    for (const [name, value] of Object.entries(values)) {
      if (name === "text") node.textContent = value;
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const el = (tag, values = {}, ...children) => element(document.createElement(tag), values, children);
  const svg = (tag, values, ...children) => element(document.createElementNS("http://www.w3.org/2000/svg", tag), values, children);

  // --- verdicts ---------------------------------------------------------------------------
  const value = () => steps[state.step].value;
  const isMoved = () => state.step !== start;

  /** Threshold of a product at a rate: the same order statistic as in calibration.py. */
  function scoreAt(product, rate) {
    const above = Math.floor((product.good.length + 1) * rate + EPSILON);
    return product.good[product.good.length - above];
  }
  const threshold = (product) => (byRate ? scoreAt(product, value()) : value());

  function byPValue(p) {
    if (p <= value() + EPSILON) return "NG";
    return p <= Math.max(value(), data.reviewRate) + EPSILON ? "REVIEW" : "OK";
  }
  const byScore = (score) => (value() === null ? "none" : score >= value() ? "NG" : "OK");
  const judged = (row) => (!isMoved() || (byRate && row.p === null) ? row.verdict : byRate ? byPValue(row.p) : byScore(row.score));

  /** Counts of all pictures of a product, those that are not listed included. */
  function countsOf(product) {
    if (!isMoved()) return product.verdicts;
    const counts = {};
    const pairs = byRate ? product.p : product.bins;
    for (const [key, count] of pairs) {
      const verdict = byRate ? byPValue(key) : byScore((key + EPSILON) / data.bins);
      counts[verdict] = (counts[verdict] || 0) + count;
    }
    return counts;
  }
  function sum(list) {
    const total = {};
    for (const counts of list) {
      for (const name of NAMES) total[name] = (total[name] || 0) + (counts[name] || 0);
    }
    return total;
  }
  const chosenProducts = () => products.filter((p) => !state.product || p.name === state.product);

  function rarity(p) {
    if (p === null) return "";
    return p > 0.1 ? "like " + percent(p) + " of good parts" : "rarer than 1 in " + number(Math.floor(1 / p + EPSILON)) + " good parts";
  }

  function said(counts) {
    const total = NAMES.reduce((n, name) => n + counts[name], 0);
    const lot = number(counts.NG) + " of " + plural(total, "picture") + " of this lot " + (counts.NG === 1 ? "is" : "are") + " NG"
      + (counts.REVIEW ? ", " + number(counts.REVIEW) + " REVIEW." : ".");
    const good = products[0] ? products[0].good : [];
    if (value() === null) return "No threshold: move the slider to try one.";
    if (byRate) {
      const rates = chosenProducts().map((p) => Math.floor((p.good.length + 1) * value() + EPSILON) / (p.good.length + 1));
      const at = chosenProducts().length === 1 ? " NG is a score above " + threshold(chosenProducts()[0]).toFixed(4) + "." : "";
      return "About " + percent(Math.max(...rates, 0)) + " of good parts would be NG (at most " + percent(steps[state.step].bound) + " with 95 % confidence)." + at + " " + lot;
    }
    if (!several && good.length) {
      const above = good.filter((score) => score >= value()).length;
      return "About " + percent((above + 1) / (good.length + 1)) + " of good parts would be NG. " + lot;
    }
    return "Not calibrated: how many good parts would be NG is unknown. " + lot;
  }

  // --- histogram --------------------------------------------------------------------------
  function drawChart() {
    const shown = chosenProducts();
    const cuts = shown.map(threshold).filter((cut) => cut !== null && cut !== undefined);
    const bins = shown.flatMap((p) => p.bins);
    const good = shown.flatMap((p) => p.good);
    const ends = bins.map(([bin]) => bin / data.bins).concat(good, cuts);
    if (!ends.length) ends.push(0, 1);
    const least = ends.reduce((a, b) => Math.min(a, b)), most = ends.reduce((a, b) => Math.max(a, b));
    const tick = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((step) => (most - least) / step <= 7) || 0.2;
    const low = Math.max(0, Math.floor(least / tick) * tick), high = Math.min(1, (Math.floor(most / tick) + 1) * tick);
    const wide = Math.min(700, Math.max(320, $("chart").clientWidth));
    const width = Math.max(1, Math.ceil(((high - low) * data.bins * 11) / wide)) / data.bins;
    const places = Math.ceil((high - low) / width - EPSILON);
    const place = (score) => Math.min(places - 1, Math.max(0, Math.floor((score - low) / width + EPSILON)));
    const review = byRate && cuts.length === 1 ? scoreAt(shown[0], Math.max(value(), data.reviewRate)) : 2;
    const kindOf = (score) => (cuts.length !== 1 ? "" : score > cuts[0] ? "ng" : score > review ? "review" : "");
    const kinds = ["", "review", "ng"].map((kind) => [kind, new Array(places).fill(0)]);
    const lot = new Array(places).fill(0), calm = new Array(places).fill(0);
    for (const [bin, count] of bins) {
      const i = place(bin / data.bins), kind = kindOf((bin + 0.5) / data.bins);
      lot[i] += count;
      kinds.find(([name]) => name === kind)[1][i] += count;
    }
    for (const score of good) calm[place(score)] += 1;
    const total = (list) => Math.max(1, list.reduce((a, b) => a + b));
    const share = (list) => list.map((n) => n / total(list));
    const tallest = Math.max(...share(lot), ...share(calm), EPSILON);
    const x = (score) => ((score - low) / (places * width)) * wide;
    const y = (part) => 150 - (part / tallest) * 128;
    const chart = $("chart"), step = wide / places;
    chart.replaceChildren();
    chart.setAttribute("viewBox", "0 0 " + wide + " 170");
    lot.forEach((count, i) => {
      let base = 150;
      for (const [kind, list] of kinds) {
        const height = list[i] && Math.max(1.5, 150 - y(list[i] / total(lot)));
        if (height) chart.append(svg("rect", { class: "bar " + kind, x: i * step + 0.5, y: (base -= height), width: Math.max(1, step - 1), height }));
      }
      if (count) chart.lastChild.append(svg("title", {}, (low + i * width).toFixed(3) + " to " + (low + (i + 1) * width).toFixed(3) + ": " + plural(count, "picture")));
    });
    if (good.length) {
      const line = share(calm).map((part, i) => "V" + y(part).toFixed(1) + "H" + ((i + 1) * step).toFixed(1)).join("");
      chart.append(svg("path", { class: "good", d: "M0 150" + line + "V150" }));
    }
    chart.append(svg("line", { x1: 0, x2: wide, y1: 150, y2: 150, stroke: "var(--line)" }));
    for (let score = low; score <= high + EPSILON; score += tick) {
      const anchor = x(score) > wide - 10 ? "end" : x(score) < 10 ? "start" : "middle";
      chart.append(svg("text", { x: x(score), y: 166, "text-anchor": anchor }, Number(score.toFixed(3))));
    }
    cuts.forEach((cut) => chart.append(svg("line", { class: "cut", x1: x(cut), x2: x(cut), y1: 12, y2: 150 })));
    if (cuts.length === 1) {
      const right = x(cuts[0]) > wide - 140;
      chart.append(svg("text", { x: x(cuts[0]) + (right ? -6 : 6), y: 20, "text-anchor": right ? "end" : "start" }, "threshold " + Number(cuts[0].toFixed(4))));
    }
    chart.setAttribute("aria-label", "Histogram of " + plural(bins.reduce((n, [, count]) => n + count, 0), "score") + " from " + low.toFixed(2) + " to " + high.toFixed(2)
      + (cuts.length === 1 ? ", threshold " + cuts[0].toFixed(4) : ""));
    const swatch = (colour) => el("span", { class: "swatch", style: "background: " + colour });
    $("legend").replaceChildren(swatch("var(--bar)"), "scores of this lot");
    if (good.length) $("legend").append(" · ", swatch("color-mix(in srgb, var(--accent) 40%, transparent)"), plural(good.length, "good picture") + " of the calibration; heights are shares of each");
    if (cuts.length > 1) $("legend").append(" · dashed: the threshold of each product");
  }

  function drawProducts() {
    if (!several) return;
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...["Product", "Good parts", "NG above", "NG", "REVIEW", "OK"].map((text) => el("th", { text })))));
    for (const product of products) {
      const counts = countsOf(product), limit = threshold(product);
      const cells = [product.name || "(none)", number(product.good.length), limit ? limit.toFixed(4) : "–", ...NAMES.slice(0, 3).map((name) => number(counts[name] || 0))];
      table.append(el("tr", {}, ...cells.map((text) => el("td", { text }))));
    }
    $("products").replaceChildren(table);
    $("products").hidden = false;
  }

  // --- cards and lines --------------------------------------------------------------------
  const folders = rows.map((row) => row.path.replace(/[^\\/]*$/, ""));
  let shared = folders[0] || "";
  for (const folder of folders) while (!folder.startsWith(shared)) shared = shared.replace(/[^\\/]*[\\/]?$/, "");
  function nameOf(row) {
    const tail = row.path.slice(shared.length), cut = Math.max(tail.lastIndexOf("/"), tail.lastIndexOf("\\")) + 1;
    return el("bdi", {}, tail.slice(0, cut), el("b", { text: tail.slice(cut) }));
  }
  const source = (kind, text) => (text ? "data:image/" + kind + ";base64," + text : null);
  function frame(row) {
    const image = el("span", { class: "frame", style: "--shape: " + row.size[0] / row.size[1] }, el("img", { class: "plain", alt: "", decoding: "async" }));
    if (row.layer) image.append(el("img", { class: "layer", alt: "", decoding: "async" }));
    return image;
  }
  function fill(node, row, large) {
    node.querySelector(".plain").src = source("jpeg", (large && row.large) || row.small);
    if (row.layer) node.querySelector(".layer").src = source("png", row.layer);
  }
  function paint(chip, verdict) {
    chip.className = "chip " + verdict.toLowerCase();
    chip.textContent = named(verdict);
  }
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      fill(entry.target, entry.target.row);
      watcher.unobserve(entry.target);
    }
  }, { rootMargin: "800px" });
  function facts(row) {
    const regions = row.nRegions ? plural(row.nRegions, "region") : ["NG", "REVIEW"].includes(row.verdict) ? "no region passes its threshold" : "";
    const folder = row.path.slice(shared.length).replace(/[\\/]?[^\\/]*$/, "");
    return [rarity(row.p), several ? row.product : "", regions, ...row.notes, folder].filter(Boolean).join(" · ");
  }
  function card(row) {
    const chip = el("span", { class: "chip" });
    const label = "Enlarge " + row.path + ", score " + row.score.toFixed(4);
    const node = el("article", { class: "card" }, el("button", { type: "button", "aria-label": label }, frame(row)),
      el("p", { class: "line" }, chip, el("span", { class: "score", text: row.score.toFixed(4) })),
      el("p", { class: "name", title: row.path }, nameOf(row).lastChild), el("p", { class: "facts", text: facts(row) }));
    node.row = row;
    watcher.observe(node);
    return { node, chip, row };
  }
  function line(row) {
    const chip = el("span", { class: "chip" });
    const name = row.overlay ? el("a", { href: row.overlay, text: row.path }) : row.path;
    const node = el("tr", {}, el("td", { text: row.score.toFixed(4) }), el("td", {}, chip), el("td", {}, name));
    return { node, chip, row };
  }
  const items = rows.map((row) => (row.small ? card(row) : line(row)));
  const collator = new Intl.Collator("en", { numeric: true });
  const rank = (item) => (byRate ? item.row.p : 0);
  const high = (a, b) => rank(a) - rank(b) || b.row.score - a.row.score;
  function distance(item) {
    const product = products.find((p) => p.name === item.row.product);
    return value() === null ? 1 - item.row.score : Math.abs(item.row.score - threshold(product));
  }
  function order() {
    if (state.sort === "name") return items.sort((a, b) => collator.compare(a.row.path, b.row.path));
    if (state.sort === "high") return items.sort(high);
    if (state.sort === "low") return items.sort((a, b) => high(b, a));
    const far = new Map(items.map((item) => [item, distance(item)]));
    return items.sort((a, b) => far.get(a) - far.get(b));
  }
  let visible = [];
  let placed = "";
  function apply() {
    const key = state.sort + (state.sort === "near" ? state.step : "");
    if (key !== placed) {
      placed = key;
      order();
      $("gallery").replaceChildren(...items.filter((item) => item.row.small).map((item) => item.node));
      $("lines").replaceChildren(...items.filter((item) => !item.row.small).map((item) => item.node));
    }
    const text = state.text.trim().toLowerCase();
    visible = [];
    let lines = 0;
    for (const item of items) {
      const verdict = judged(item.row);
      if (item.verdict !== verdict) paint(item.chip, (item.verdict = verdict));
      const fits = (state.verdict === "all" || state.verdict === verdict) && (!state.product || item.row.product === state.product)
        && (!text || item.row.path.toLowerCase().includes(text));
      if (item.node.hidden === fits) item.node.hidden = !fits;
      if (fits && item.row.small) visible.push(item);
      else if (fits) lines += 1;
    }
    $("listed").hidden = !lines;
    $("empty").hidden = visible.length + lines > 0;
    $("count").textContent = number(visible.length + lines) + " of " + number(items.length) + " shown";
    if ($("errors")) $("errors").hidden = state.verdict !== "all";
  }
  function refresh() {
    const counts = sum(chosenProducts().map(countsOf));
    $("value").textContent = value() === null ? "none" : byRate ? percent(value()) : Number(value().toFixed(4));
    $("slider").value = state.step;
    $("slider").setAttribute("aria-valuetext", $("value").textContent);
    $("reset").disabled = !isMoved();
    $("said").textContent = (isMoved() ? "Trial: " : "") + said(counts);
    $("counts").classList.toggle("trial", isMoved());
    for (const node of $("counts").querySelectorAll("[data-count]")) {
      const count = counts[node.dataset.count] || 0;
      node.firstElementChild.textContent = number(count);
      node.hidden = !count && !(node.dataset.count === "NG" && value() !== null);
    }
    for (const button of $("filters").children) {
      const name = button.dataset.verdict;
      const count = name === "all" ? NAMES.reduce((n, each) => n + (counts[each] || 0), 0) : counts[name] || 0;
      button.lastElementChild.textContent = number(count);
      button.setAttribute("aria-pressed", String(state.verdict === name));
      button.hidden = name !== "all" && state.verdict !== name && !count;
    }
    drawChart();
    drawProducts();
    apply();
    clearTimeout(refresh.later);
    refresh.later = setTimeout(drawPaper, 150);
  }

  // --- print ------------------------------------------------------------------------------
  const ON_PAPER = 36; // two pages of A4
  function drawPaper() {
    const bad = items.filter((item) => ["NG", "REVIEW"].includes(item.verdict)).sort((a, b) => NAMES.indexOf(a.verdict) - NAMES.indexOf(b.verdict) || high(a, b));
    const list = bad.slice(0, ON_PAPER).map(({ row, verdict }) => {
      const chip = el("span"), box = el("div", { class: "box" });
      paint(chip, verdict);
      if (row.small) { box.append(frame(row)); fill(box, row); }
      return el("li", {}, box, el("div", {}, chip, " ", el("b", { text: row.score.toFixed(4) }), el("div", { text: rarity(row.p) }), el("p", { class: "name" }, nameOf(row))));
    });
    const counts = sum(chosenProducts().map(countsOf)), count = counts.NG + counts.REVIEW;
    const more = count > list.length ? "The first " + number(list.length) + " of " + plural(count, "picture") + " that are NG or REVIEW" : "NG and REVIEW";
    $("paper").replaceChildren(...(list.length ? [el("h2", { text: more }), el("ol", {}, ...list)] : []));
  }
  addEventListener("beforeprint", drawPaper);
  addEventListener("resize", drawChart);

  // --- zoom -------------------------------------------------------------------------------
  const zoom = $("zoom");
  let open = 0;
  function show(index) {
    open = Math.min(visible.length - 1, Math.max(0, index));
    const { row, verdict } = visible[open];
    paint($("zoomChip"), verdict);
    $("zoomScore").textContent = row.score.toFixed(4);
    $("zoomWords").textContent = rarity(row.p);
    $("zoomName").replaceChildren(nameOf(row));
    const image = frame(row);
    fill(image, row, true);
    image.querySelector(".plain").alt = row.path;
    zoom.querySelector(".frame").replaceWith(image);
    const list = row.regions.map(([x0, y0, x1, y1, peak], i) => "Region " + (i + 1) + ": x " + x0 + "–" + x1 + ", y " + y0 + "–" + y1 + " px, peak " + peak.toFixed(4));
    const left = row.nRegions - list.length;
    list.unshift(row.size.join(" × ") + " px" + (several ? ", product " + row.product : ""), ...row.notes);
    if (left > 0) list.push(plural(left, "more region"));
    $("zoomFacts").replaceChildren(...list.map((text) => el("li", { text })));
    if (row.overlay) $("zoomFacts").append(el("li", {}, "Full size, in the results folder: ", el("a", { href: row.overlay, target: "_blank", text: row.overlay.replace(/^.*\//, "") })));
    $("zoomPlace").textContent = number(open + 1) + " of " + number(visible.length);
    zoom.querySelector('[data-go="-1"]').disabled = open === 0;
    zoom.querySelector('[data-go="1"]').disabled = open === visible.length - 1;
    if (!zoom.open) zoom.showModal();
  }
  function toggleOverlay() {
    const bare = document.body.classList.toggle("bare");
    for (const button of [$("overlay"), zoom.querySelector('[data-go="overlay"]')]) button.setAttribute("aria-pressed", String(!bare));
  }
  $("gallery").addEventListener("click", (event) => {
    const node = event.target.closest("button") && event.target.closest(".card");
    if (node) show(visible.findIndex((item) => item.node === node));
  });
  zoom.addEventListener("click", (event) => {
    const button = event.target.closest("[data-go]");
    if (event.target === zoom || (button && button.dataset.go === "close")) zoom.close();
    else if (button && button.dataset.go === "overlay") toggleOverlay();
    else if (button) show(open + Number(button.dataset.go));
  });
  zoom.addEventListener("close", () => visible[open] && visible[open].node.querySelector("button").focus());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "o") toggleOverlay();
    if (!zoom.open || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    show(open + (event.key === "ArrowLeft" ? -1 : 1));
  });

  // --- controls ---------------------------------------------------------------------------
  for (const name of ["all", ...NAMES]) {
    const text = name === "all" ? "All" : named(name);
    $("filters").append(el("button", { type: "button", "data-verdict": name, "aria-pressed": "false" }, text, " ", el("span")));
  }
  const set = (name, redraw) => (event) => { state[name] = event.target.value; redraw(); };
  $("filters").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    state.verdict = button.dataset.verdict;
    refresh();
  });
  if (several) {
    $("product").hidden = false;
    $("product").append(el("option", { value: "", text: "All products" }), ...products.map((p) => el("option", { value: p.name, text: p.name })));
  }
  $("product").addEventListener("change", set("product", refresh));
  $("sort").addEventListener("change", set("sort", apply));
  $("search").addEventListener("input", set("text", apply));
  $("overlay").addEventListener("click", toggleOverlay);
  $("slider").max = steps.length - 1;
  let frameAsked = 0;
  $("slider").addEventListener("input", (event) => {
    state.step = Number(event.target.value);
    cancelAnimationFrame(frameAsked);
    frameAsked = requestAnimationFrame(refresh);
  });
  $("reset").addEventListener("click", () => { state.step = start; refresh(); $("slider").focus(); });
  $("overlay").hidden = !rows.some((row) => row.layer);
  $("scale").hidden = !rows.some((row) => row.layer && !row.nRegions);
  refresh();
  document.body.dataset.ready = "true";
})();
