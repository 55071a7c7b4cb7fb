// Zoom on several images at once, at the same place of each.
const MOST = 12;

export function zoomable(stage) {
  const panes = [...stage.querySelectorAll(".pane")];
  const state = { zoom: 1, x: 0.5, y: 0.5 };
  const pointers = new Map();
  const listeners = [];
  let moved = false;
  let apart = 0;

  function apply() {
    stage.style.setProperty("--zoom", state.zoom);
    stage.style.setProperty("--x", `${100 * state.x}%`);
    stage.style.setProperty("--y", `${100 * state.y}%`);
    stage.classList.toggle("zoomed", state.zoom > 1);
    const image = stage.querySelector("img");
    const shown = image.naturalWidth ? Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight) : 1;
    stage.classList.toggle("exact", shown * state.zoom >= 3);
    listeners.forEach((listener) => listener(state.zoom > 1));
  }
  function at(pane, event) {
    const box = pane.getBoundingClientRect();
    state.x = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    state.y = Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
  }
  function to(zoom) {
    state.zoom = Math.min(MOST, Math.max(1, zoom));
    apply();
  }
  const distance = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };

  for (const pane of panes) {
    pane.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (state.zoom === 1) at(pane, event);
      to(state.zoom * Math.exp(-event.deltaY / 300));
    }, { passive: false });
    pane.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      moved = false;
      if (pointers.size === 2) apart = distance();
    });
    pane.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (event.pointerType === "mouse") {
        if (state.zoom > 1) { at(pane, event); apply(); }
        return;
      }
      if (!before) return;
      if (pointers.size === 2) {
        pointers.set(event.pointerId, event);
        const now = distance();
        if (state.zoom === 1) at(pane, event);
        to(state.zoom * (now / apart));
        apart = now;
        moved = true;
      } else {
        const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
        if (Math.hypot(dx, dy) < 6 && !moved) return;
        moved = true;
        pointers.set(event.pointerId, event);
        if (state.zoom > 1) {
          const box = pane.getBoundingClientRect();
          state.x = Math.min(1, Math.max(0, state.x - dx / (box.width * (state.zoom - 1))));
          state.y = Math.min(1, Math.max(0, state.y - dy / (box.height * (state.zoom - 1))));
          apply();
        }
      }
    });
    const up = (event) => pointers.delete(event.pointerId);
    pane.addEventListener("pointerup", up);
    pane.addEventListener("pointercancel", up);
    pane.addEventListener("pointerleave", up);
    pane.addEventListener("click", (event) => {
      if (moved) return;
      at(pane, event);
      to(state.zoom > 1 ? 1 : 3);
    });
  }
  return {
    toggle: () => to(state.zoom > 1 ? 1 : 3),
    by: (factor) => to(state.zoom * factor),
    reset: () => { Object.assign(state, { zoom: 1, x: 0.5, y: 0.5 }); apply(); },
    onchange: (listener) => listeners.push(listener),
  };
}
