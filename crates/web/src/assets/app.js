// Shared by all pages: light or dark, and asking the server.
const theme = document.getElementById("theme");
const root = document.documentElement;
const chosen = localStorage.getItem("theme");
if (chosen) root.dataset.theme = chosen;
if (theme) {
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Posts until the server has answered: a vote that was not acknowledged is sent again. `waiting` hears why it takes longer.
export async function post(path, body, waiting = () => {}) {
  for (let wait = 250; ; wait = Math.min(2 * wait, 4000)) {
    try {
      const response = await fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      if (response.ok || response.status === 409) return { status: response.status, data: await response.json() };
      if (response.status !== 507 && response.status < 500) return { status: response.status, data: null, text: await response.text() };
      waiting("Not saved: the disk is full or refuses. Trying again.");
    } catch {
      waiting("Not saved: the server does not answer. Trying again.");
    }
    await pause(wait);
  }
}

export async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}
