"use strict";
// Without this script the page still shows everything; it only adds a theme switch and enlarged pictures.
const root = document.documentElement;
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
});

const zoom = document.getElementById("zoom");
document.querySelectorAll(".pictures button").forEach((button) => {
  button.addEventListener("click", () => {
    const picture = button.firstElementChild;
    const [large, caption] = zoom.children;
    large.src = picture.src;
    large.alt = picture.alt;
    caption.textContent = picture.alt;
    zoom.showModal();
  });
});
zoom.addEventListener("click", () => zoom.close());
