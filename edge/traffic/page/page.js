
"use strict";
// A reload keeps the query and the fragment; where the address has a fragment, Chromium ignores a refresh.
// Nobody is looking at a hidden page, so it neither wakes a sandbox nor keeps one awake.
const state = document.getElementById("state");
const seconds = Number(document.body.dataset.seconds);
let due = false;

function reload(event) {
  event?.preventDefault();
  if (state) state.textContent = "Trying now\u2026";
  location.reload();
}

function reloadIfSeen() {
  if (due && document.visibilityState === "visible") reload();
}

document.getElementById("again").addEventListener("click", reload);
if (seconds) {
  setTimeout(() => { due = true; reloadIfSeen(); }, seconds * 1000);
  document.addEventListener("visibilitychange", reloadIfSeen);
}
