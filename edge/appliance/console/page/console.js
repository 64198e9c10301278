"use strict";
// A page that follows what happens. The stream says that something has changed; then the page is asked for
// again, and every element with an id and data of its own is brought up to date in place, so that focus,
// selection and open details stay. Texts are copied as texts: nothing here makes markup of a string.
const LIVE = ["sandboxes", "wakes", "state", "actions", "facts", "links", "events"];
const status = document.getElementById("live");
let stream = null;
let asking = false;
let again = false;
let retry = 0;

function say(text, kind) {
  if (status.textContent !== text) status.textContent = text;
  status.className = kind;
}

function look() {
  if (asking) { again = true; return; }
  asking = true;
  again = false;
  const ask = new XMLHttpRequest();  // gives a document, in which no script runs
  ask.responseType = "document";
  ask.timeout = 10000;
  ask.open("GET", document.body.dataset.live);
  ask.onloadend = () => {
    asking = false;
    if (ask.responseURL.endsWith("/login")) { location.assign(ask.responseURL); return; }
    if (ask.status === 200 && ask.response) update(ask.response);
    if (again) look();
  };
  ask.send();
}

function update(fresh) {
  for (const id of LIVE) {
    const old = document.getElementById(id);
    const now = fresh.getElementById(id);
    if (old && now) morph(old, now);
  }
}

function morph(old, now) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== now.data) old.data = now.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name, value } of [...now.attributes]) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!now.hasAttribute(name) && !(name === "open" && old.localName === "details")) old.removeAttribute(name);
  }
  const wanted = new Set([...now.children].map((child) => child.id).filter(Boolean));
  for (const child of [...old.children]) {
    if (child.id && !wanted.has(child.id)) child.remove();
  }
  const kept = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const child of [...now.childNodes]) {
    const like = child.id ? kept.get(child.id) : place && !place.id && place.nodeName === child.nodeName ? place : null;
    if (!like) {
      old.insertBefore(document.adoptNode(child), place);
    } else {
      if (like === place) place = place.nextSibling;
      else old.insertBefore(like, place);
      morph(like, child);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// Nobody is looking at a hidden page, and a browser opens few streams to one address.
function follow() {
  clearTimeout(retry);
  if (document.visibilityState !== "visible") { stop(); return; }
  if (stream) return;
  stream = new EventSource(document.body.dataset.stream);
  stream.addEventListener("changed", () => { say("Live", "on"); look(); });
  stream.addEventListener("full", () => { stop(); say("Not live: too many pages are open. Reload for news.", "off"); });
  stream.addEventListener("over", () => { stop(); look(); });
  stream.onerror = () => {
    stop();
    say("Not live, trying again…", "off");
    look();  // leads to the log-in page when the session is over
    retry = setTimeout(follow, 2000);
  };
}

function stop() {
  stream?.close();
  stream = null;
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).value);
    button.textContent = "Copied";
  });
}

document.addEventListener("visibilitychange", follow);
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", follow);
follow();
