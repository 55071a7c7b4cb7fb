import { post } from "./app.js";

const status = document.getElementById("status");
const say = (text, bad) => { status.textContent = text; status.classList.toggle("bad", bad); };
for (const select of document.querySelectorAll("select[data-task]")) {
  select.addEventListener("change", async () => {
    select.disabled = true;
    const body = { task: select.dataset.task, answer: select.value, seconds: 0 };
    const { status: code } = await post("/api/vote", body, (why) => say(why, true));
    select.disabled = false;
    select.focus();
    if (code === 200) say("Saved.", false);
    else if (code === 409) say("Others gave this vote meanwhile; yours stays as it was.", true);
    else say(`The server refuses (${code}). Load this page again.`, true);
  });
}
