"use strict";
(() => {
  const numbers = JSON.parse(document.getElementById("numbers").textContent);
  const bubble = document.getElementById("bubble");
  const said = document.getElementById("said");
  const root = document.documentElement;
  const views = [...document.querySelectorAll(".view")].map(looked);

  // What a view of the page shows: its units, and the elements or windows they have.
  function looked(element) {
    const [panel, index, loose] = element.dataset.view.split(".");
    const view = numbers.panels[panel].views[index];
    const stage = element.classList.contains("stage");
    const units = view.units.filter((unit) =>
      stage ? unit.window : loose ? !unit.window : true);
    const source = element.closest("section");
    return { element, view, units, stage, source, spans: stage ? [] : [...element.children], at: -1 };
  }

  function told(unit) {
    if (unit.value === null) return `${unit.name}: the method says nothing of it`;
    const sign = unit.strength > 0 ? "for" : unit.strength < 0 ? "against" : "nothing";
    const strength = (unit.strength < 0 ? "−" : "+") + Math.abs(unit.strength).toFixed(2);
    return `${unit.name}: ${strength} ${sign} (${String(Number(unit.value.toPrecision(3))).replace("-", "−")})`;
  }

  function found(look, event) {
    if (!look.stage) return look.spans.indexOf(event.target.closest("span"));
    const place = look.element.getBoundingClientRect();
    const x = (event.clientX - place.left) / place.width;
    const y = (event.clientY - place.top) / place.height;
    let best = -1;
    look.units.forEach((unit, i) => {
      const [left, top, right, bottom] = unit.window;
      if (x < left || x >= right || y < top || y >= bottom) return;
      if (best < 0 || Math.abs(unit.strength) > Math.abs(look.units[best].strength)) best = i;
    });
    return best;
  }

  // The same patch is marked in every panel of the row: one sees at once what it did there.
  function alike(look) {
    return views.filter((other) => other === look || (other.stage && look.stage && other.source === look.source &&
      other.view.stream === look.view.stream && other.view.part === look.view.part &&
      other.units.length === look.units.length));
  }

  function mark(look, index) {
    look.at = index;
    if (!look.stage) {
      look.spans.forEach((span, i) => span.classList.toggle("on", i === index));
      return;
    }
    const cursor = look.element.querySelector(".cursor");
    cursor.hidden = index < 0;
    if (index < 0) return;
    const [left, top, right, bottom] = look.units[index].window.map((share) => 100 * Math.min(Math.max(share, 0), 1));
    Object.assign(cursor.style, {
      left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
    });
  }

  function read(look, index) {
    views.forEach((other) => { if (other.at >= 0) mark(other, -1); });
    bubble.hidden = index < 0;
    if (index < 0) return;
    alike(look).forEach((other) => mark(other, index));
    const text = told(look.units[index]);
    bubble.textContent = text;
    said.textContent = text;
    const target = look.stage ? look.element.querySelector(".cursor") : look.spans[index];
    const place = target.getBoundingClientRect();
    const size = bubble.getBoundingClientRect();
    const middle = place.left + place.width / 2 - size.width / 2;
    const above = place.top - size.height - 8;
    bubble.style.left = `${scrollX + Math.max(6, Math.min(middle, root.clientWidth - size.width - 6))}px`;
    bubble.style.top = `${scrollY + (above < 50 ? place.bottom + 8 : above)}px`;
  }

  function stepped(look, key) {
    const count = look.units.length;
    const wide = look.stage ? look.view.columns || 1 : Number(look.element.dataset.columns ?? 1);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide }[key];
    if (key === "Home") return 0;
    if (key === "End") return count - 1;
    if (step === undefined) return null;
    return look.at < 0 ? strongest(look) : Math.max(0, Math.min(count - 1, look.at + step));
  }

  function strongest(look) {
    return look.units.reduce((best, unit, i) =>
      Math.abs(unit.strength) > Math.abs(look.units[best].strength) ? i : best, 0);
  }

  for (const look of views) {
    const { element } = look;
    element.addEventListener("pointermove", (event) => read(look, found(look, event)));
    element.addEventListener("pointerdown", (event) => read(look, found(look, event)));
    element.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") read(look, -1); });
    element.addEventListener("focus", () => {
      if (look.units.length && element.matches(":focus-visible")) read(look, strongest(look));
    });
    element.addEventListener("blur", () => read(look, -1));
    element.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "Escape") read(look, -1);
      const index = look.units.length ? stepped(look, event.key) : null;
      if (index === null) return;
      event.preventDefault();
      read(look, index);
    });
  }

  for (const radio of document.querySelectorAll("input[name=sign]")) {
    radio.addEventListener("change", shown);
  }
  document.getElementById("opacity").addEventListener("input", shown);
  document.getElementById("edges").addEventListener("change", shown);

  function shown() {
    const sign = document.querySelector("input[name=sign]:checked").value;
    root.classList.toggle("only-for", sign === "for");
    root.classList.toggle("only-against", sign === "against");
    root.classList.toggle("edges", document.getElementById("edges").checked);
    root.style.setProperty("--veil", document.getElementById("opacity").value / 100);
  }

  // Lines of a row are as full as one another: four stand as two and two, never as three and one.
  const rowsOfPanels = [...document.querySelectorAll(".row")];

  function balanced() {
    for (const row of rowsOfPanels) {
      const style = getComputedStyle(row);
      const least = 15 * parseFloat(getComputedStyle(root).fontSize), gap = parseFloat(style.columnGap);
      const most = Math.max(1, Math.floor((row.clientWidth + gap) / (least + gap)));
      const cells = [...row.children].reduce((sum, figure) => sum + (figure.classList.contains("broad") ? 2 : 1), 0);
      const columns = Math.ceil(cells / Math.ceil(cells / most));
      row.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    }
  }

  const files = {
    json: ["application/json", () => JSON.stringify(numbers, null, 1)],
    csv: ["text/csv", () => rows().map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n"],
  };

  function rows() {
    const lines = [["panel", "target", "method", "stream", "unit", "value", "strength", "left", "top", "right", "bottom"]];
    for (const [i, panel] of numbers.panels.entries()) {
      for (const view of panel.views) {
        for (const unit of view.units) {
          lines.push([i + 1, panel.title, panel.method, view.part ?? view.stream, unit.name, unit.value, unit.strength,
            ...(unit.window ?? ["", "", "", ""])]);
        }
      }
    }
    return lines;
  }

  function quoted(cell) {
    return /[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell);
  }

  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => {
      const [type, made] = files[button.dataset.download];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([made()], { type }));
      link.download = `heedmap.${button.dataset.download}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  window.heedmap = { numbers, views, files, read }; // for what is written besides
  shown();
  balanced();
  addEventListener("resize", balanced);
})();
