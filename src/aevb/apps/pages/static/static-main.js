// Opens the explorer without a server: everything is in the page.

import { start } from "./app.js";
import { StaticBackend } from "./static-backend.js";

const content = JSON.parse(document.getElementById("content").textContent);
start(document.getElementById("app"), new StaticBackend(content));
