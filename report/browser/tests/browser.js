// Every fault of the page on a line of its own; CHARTS is how many charts it should have.
(() => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    faults.push(`scrolls sideways: ${root.scrollWidth} of ${root.clientWidth}`);
  }
  const charts = [...document.querySelectorAll("svg.chart")];
  if (charts.length !== CHARTS) faults.push(`${charts.length} charts of ${CHARTS}`);
  const about = (text) => JSON.stringify(text.textContent);
  for (const svg of charts) {
    const name = svg.getAttribute("aria-label").slice(0, 40);
    const fault = (what) => faults.push(`${name}: ${what}`);
    const frame = svg.getBoundingClientRect();
    const marks = [...svg.querySelectorAll(".m, .h")];
    if (marks.length < 2) fault("no marks");
    for (const mark of marks) {
      const box = mark.getBoundingClientRect();
      if (!(box.width > 1 && box.height > 1)) fault("a mark that cannot be seen");
      const inside = box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
      if (!inside) fault("a mark outside");
    }
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      const a = boxes[i];
      const outside = a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1;
      if (outside) fault(`outside: ${about(text)}`);
      const size = parseFloat(getComputedStyle(text).fontSize) * (frame.width / svg.viewBox.baseVal.width);
      if (size < 9) fault(`${size} px: ${about(text)}`);
      for (let j = 0; j < i; j++) {
        const b = boxes[j];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 1) fault(`${about(text)} overlaps ${about(texts[j])}`);
        // Labels of two lines, read as one.
        const labels = text.matches(".o") && texts[j].matches(".o");
        if (labels && wide > -4 && high > 4) fault(`${about(text)} runs into ${about(texts[j])}`);
      }
    });
  }
  // On a large screen all of a table is seen, and no chart stands alone in a row that has room for
  // others.
  if (root.clientWidth >= 1300) {
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth + 1) {
        faults.push(`${box.getAttribute("aria-label").slice(0, 40)}: ${box.scrollWidth} of ${box.clientWidth}`);
      }
    }
    for (const grid of document.querySelectorAll(".charts")) {
      const rows = new Map();
      for (const figure of grid.children) {
        const top = Math.round(figure.getBoundingClientRect().top);
        rows.set(top, (rows.get(top) || 0) + 1);
      }
      if (rows.size > 1 && [...rows.values()].includes(1)) faults.push(`a chart alone: rows of ${[...rows.values()]}`);
    }
  }
  for (const table of document.querySelectorAll("table")) {
    const cells = [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    cells[0].forEach((name, i) => {
      if (cells.slice(1).every((row) => !row[i])) faults.push(`an empty column: ${name}`);
    });
  }
  return faults.join("\n");
})()
