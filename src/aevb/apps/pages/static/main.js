// Opens the page with the server as its backend. The token comes behind # in the link, and is kept for this tab.

import { start } from "./app.js";
import { ServerBackend } from "./backend.js";

function token() {
  const key = `aevb-token-${location.port}`;
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(key, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(key) || "";
}

const key = token();
start(document.getElementById("app"), new ServerBackend(key), new ServerBackend(key, "/other"));
