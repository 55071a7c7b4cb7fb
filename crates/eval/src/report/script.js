"use strict";
// Without this script the page still shows everything; it only adds a theme switch and enlarged images.
const root = document.documentElement;
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const dark = getComputedStyle(root).colorScheme === "dark"
    || (root.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
});

const zoom = document.getElementById("zoom");
document.querySelectorAll(".images button").forEach((button) => {
  button.addEventListener("click", () => {
    const image = button.firstElementChild;
    const [large, caption] = zoom.children;
    large.src = image.src;
    large.alt = image.alt;
    caption.textContent = image.alt;
    zoom.showModal();
  });
});
zoom.addEventListener("click", () => zoom.close());
