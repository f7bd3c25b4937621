// The viewer: zoom, move, window and level by mouse, touch and keys; the heat map; the reader's verdict.
const $ = (id) => document.getElementById(id);
const stage = $("stage"), sheet = $("sheet"), picture = $("picture"), heat = $("heat"), verdict = $("verdict");
const tool = (name) => document.querySelector(`[data-do="${name}"]`);
const press = (name, on) => tool(name)?.setAttribute("aria-pressed", on);

if (stage) {
  const columns = +picture.getAttribute("width") || picture.width || 1024, rows = +picture.getAttribute("height") || picture.height || 1024;
  let wide = columns, high = rows; // the sheet's size, in pixels of the picture in full
  const view = { scale: 1, x: 0, y: 0, center: 0.5, width: 1, inverted: false, mode: "move", fitted: true };
  const drawn = { center: 0.5, width: 1, full: false }; // what the picture at hand is, as the server made it
  const fingers = new Map();

  const draw = () => {
    sheet.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    const full = drawn.full || view.scale * wide * devicePixelRatio > 2100, same = view.center === drawn.center && view.width === drawn.width;
    if (!same || full !== drawn.full) fetchSoon({ center: view.center, width: view.width, full });
    else wanted = clearTimeout(soon);
    let slope = drawn.width / view.width, intercept = 0.5 + (drawn.center - drawn.width / 2 - view.center) / view.width;
    if (view.inverted) { slope = -slope; intercept = 1 - intercept; }
    for (const part of document.querySelectorAll("#window feFuncR, #window feFuncG, #window feFuncB")) {
      part.setAttribute("slope", slope);
      part.setAttribute("intercept", intercept);
    }
    picture.style.filter = same && !view.inverted ? "" : "url(#window)";
  };
  // A filter stretches the 8 bits at hand while one drags; then the server draws that window from the stored values.
  let soon, wanted;
  const fetchSoon = (next) => {
    clearTimeout(soon);
    wanted = next;
    soon = setTimeout(() => {
      const url = new URL(picture.dataset.full, location.href), image = new Image();
      if (!next.full) url.searchParams.set("size", 2048);
      if (next.center !== 0.5 || next.width !== 1) { url.searchParams.set("center", next.center); url.searchParams.set("width", next.width); }
      image.onload = () => {
        if (wanted !== next) return;
        picture.src = url;
        Object.assign(drawn, next);
        draw();
      };
      image.src = url;
    }, 150);
  };
  const fit = () => {
    view.scale = Math.min(stage.clientWidth / wide, stage.clientHeight / high);
    view.x = (stage.clientWidth - wide * view.scale) / 2;
    view.y = (stage.clientHeight - high * view.scale) / 2;
    view.fitted = true;
    draw();
  };
  // Pixels that are not square were made so, by enlarging one axis: the sheet has the proportions of what is shown.
  const shape = () => {
    const ratio = (picture.naturalWidth || columns) / (picture.naturalHeight || rows);
    wide = Math.max(columns, Math.round(rows * ratio));
    high = Math.max(rows, Math.round(columns / ratio));
    sheet.style.width = `${wide}px`;
    sheet.style.height = `${high}px`;
    if (view.fitted) fit();
  };
  const zoom = (factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) => {
    const scale = Math.min(Math.max(view.scale * factor, 0.05), 20), by = scale / view.scale;
    Object.assign(view, { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by, fitted: false });
    draw();
  };
  const move = (x, y) => { view.x += x; view.y += y; view.fitted = false; draw(); };
  const level = (x, y) => {
    view.width = Math.min(Math.max(view.width * Math.exp(x / 300), 0.002), 4);
    view.center = Math.min(Math.max(view.center + y / 500, -0.5), 1.5);
    draw();
  };
  const mode = (name) => { view.mode = name; press("move", name === "move"); press("window", name === "window"); stage.classList.toggle("window", name === "window"); };
  const show = (on) => { if (heat) { heat.hidden = !on; heat.style.display = on ? "" : "none"; press("heat", on); } };
  const actions = {
    move: () => mode("move"), window: () => mode("window"), in: () => zoom(1.25), out: () => zoom(0.8), fit,
    invert: () => { view.inverted = !view.inverted; press("invert", view.inverted); draw(); },
    reset: () => { Object.assign(view, { center: 0.5, width: 1, inverted: false }); press("invert", false); fit(); },
    heat: () => show(heat.hidden),
  };
  window.viewerKeys = { "+": actions.in, "=": actions.in, "-": actions.out, 0: fit, i: actions.invert, h: () => heat && actions.heat() };
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => actions[button.dataset.do]());
  $("opacity")?.addEventListener("input", (event) => { show(true); heat.style.opacity = event.target.value / 100; });

  const place = (event) => { const box = stage.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  stage.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 500), ...place(event)); }, { passive: false });
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", (event) => (view.fitted ? zoom(2.5, ...place(event)) : fit()));
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); fingers.set(event.pointerId, place(event)); });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => fingers.delete(event.pointerId));
  stage.addEventListener("pointermove", (event) => {
    const from = fingers.get(event.pointerId), to = place(event);
    if (!from) return;
    fingers.set(event.pointerId, to);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    const [x, y] = [to[0] - from[0], to[1] - from[1]];
    if (other) {
      const far = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoom(far(to) / Math.max(far(from), 1), (to[0] + other[0]) / 2, (to[1] + other[1]) / 2);
      move(x / 2, y / 2);
    } else if (view.mode === "window" || event.buttons & 2 || event.shiftKey) level(x, y);
    else move(x, y);
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (step) { event.preventDefault(); move(...step); }
  });
  for (const image of [picture, heat]) {
    let tries = 0;
    image?.addEventListener("error", () => { // busy: a moment later it is drawn
      if (++tries < 5) setTimeout(() => { const url = image.src; image.src = ""; image.src = url; }, 700 * tries);
      else if (image === picture) $("trouble").hidden = false;
      else show(false);
    });
  }
  new ResizeObserver(() => view.fitted && fit()).observe(stage);
  picture.addEventListener("load", shape);
  shape();
}

verdict?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const chosen = event.submitter.value, body = new FormData(verdict), token = document.querySelector('meta[name="csrf-token"]')?.content;
  body.set("verdict", chosen);
  try {
    const answer = await fetch(verdict.action, { method: "POST", body: new URLSearchParams(body), headers: { Accept: "application/json", ...(token ? { "X-CSRF-Token": token } : {}) } });
    if (!answer.ok) throw new Error(`it was refused (${answer.status})`);
    for (const button of verdict.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === chosen);
    $("said").textContent = `Recorded: ${chosen}`;
  } catch (error) {
    $("said").textContent = `Not recorded: ${error.message}; reload the page and try again`;
  }
});

const keys = {
  j: () => $("after")?.click(), k: () => $("before")?.click(),
  a: () => verdict?.querySelector('[value="agree"]').click(), d: () => verdict?.querySelector('[value="disagree"]').click(), u: () => verdict?.querySelector('[value="unsure"]').click(),
  ...window.viewerKeys,
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range") return;
  keys[event.key]?.();
});
