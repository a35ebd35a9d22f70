// What a mark's <title> says, at once: under the mouse, the finger, or by the arrow keys.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  const hide = () => { tip.hidden = true; };
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth - width - 8;
    tip.style.left = Math.max(8, Math.min(x - width / 2, right)) + "px";
    tip.style.top = (y - height - 14 < 0 ? y + 18 : y - height - 14) + "px";
  };
  for (const svg of document.querySelectorAll("svg.chart")) {
    const titles = new Map();
    for (const title of [...svg.querySelectorAll("title")]) {
      if (title.parentNode !== svg) titles.set(title.parentNode, title.textContent);
      // The browser would show it too, later; the chart has its name from aria-label.
      title.remove();
    }
    const marks = [...titles.keys()].filter((mark) => !mark.matches("polyline"));
    const middle = (mark) => {
      const { left, top, width, height } = mark.getBoundingClientRect();
      return [left + width / 2, top + height / 2];
    };
    const point = (event) => {
      const { clientX: x, clientY: y } = event;
      let [nearest, best] = [null, 20];
      for (const mark of marks) {
        const [mx, my] = middle(mark);
        const distance = Math.hypot(mx - x, my - y);
        if (distance < best) [nearest, best] = [mark, distance];
      }
      const mark = nearest ?? (titles.has(event.target) ? event.target : null);
      if (mark) show(titles.get(mark), x, y); else hide();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
    if (marks.length === 0) continue;
    svg.tabIndex = 0;
    let current = -1;
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      current = (current + step + marks.length + (current < 0 && step < 0 ? 1 : 0)) % marks.length;
      show(titles.get(marks[current]), ...middle(marks[current]));
    });
  }
  for (const event of ["wheel", "pointercancel"]) addEventListener(event, hide, { passive: true });
})();
