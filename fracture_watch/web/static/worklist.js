// New results come by themselves: into the list if nobody is reading it, else behind a button. Without this script: reload.
const list = document.getElementById("list"), news = document.getElementById("news"), said = document.getElementById("said");
const PAUSE = 3000, TRIES = 6;
let waiting = null;

const rows = (root) => [...root.querySelectorAll("tr[data-study]")];
const studies = (root) => new Set(rows(root).map((row) => row.dataset.study));
const isRead = () => scrollY > 8 || list.contains(document.activeElement) || list.matches(":hover");

function keepPictures(root) { // a busy service says so, and draws the picture a moment later
  for (const picture of root.querySelectorAll(".thumb img")) {
    let tries = 0;
    picture.addEventListener("error", () => {
      if (++tries < TRIES) setTimeout(() => { const url = picture.src; picture.src = ""; picture.src = url; }, 800 * tries);
      else picture.remove();
    });
  }
}

function show(fresh) {
  const before = studies(list);
  list.replaceChildren(...fresh.getElementById("list").childNodes);
  for (const row of rows(list)) if (!before.has(row.dataset.study)) row.classList.add("fresh");
  showTimes(list);
  keepPictures(list);
  news.hidden = true;
  waiting = null;
}

function offer(fresh) {
  const there = studies(list), found = fresh.getElementById("list");
  const added = [...studies(found)].filter((study) => !there.has(study)).length;
  for (const live of fresh.querySelectorAll("[data-live]")) {
    const old = document.querySelector(`[data-live="${live.dataset.live}"]`);
    if (old && !old.contains(document.activeElement)) old.replaceChildren(...live.childNodes);
  }
  if (!isRead()) { show(fresh); }
  else {
    for (const row of rows(list)) { // what is read stays where it is, but says what is true now
      const now = rows(found).find((other) => other.dataset.study === row.dataset.study);
      for (const name of [".call", ".age"]) {
        const cell = now?.querySelector(name);
        if (cell && cell.innerHTML !== row.querySelector(name).innerHTML) { row.querySelector(name).innerHTML = cell.innerHTML; }
      }
    }
    showTimes(list);
    if (added) {
      waiting = fresh;
      news.textContent = `${added} new`;
      news.hidden = false;
    }
  }
  if (added) said.textContent = `${added} new`;
}

news.addEventListener("click", () => { const fresh = waiting; scrollTo(0, 0); news.blur(); if (fresh) show(fresh); });

let tag = null;
async function poll() {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (answer.status === 200 && !answer.redirected) {
        const seen = tag;
        tag = answer.headers.get("ETag");
        if (seen !== tag) offer(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch { /* the service is away; what is shown stays */ }
  }
  setTimeout(poll, PAUSE);
}
keepPictures(list);
setTimeout(poll, PAUSE);
