"use strict";
// What a model wrote: the panel of the page shows the word that is pointed at, else the one that is chosen.
(() => {
  const { numbers, views, files, read } = window.heedmap;
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const bytes = new Int8Array(Uint8Array.from(atob(rows.strengths), (letter) => letter.charCodeAt(0)).buffer);
  const wide = rows.views.reduce((sum, view) => sum + view.count, 0);
  const [panel] = numbers.panels;
  const answer = document.querySelector(".answer");
  const labels = [...answer.querySelectorAll("label")];
  const slider = document.getElementById("word");
  const place = document.getElementById("place");
  const told = document.getElementById("told");
  const caption = document.querySelector("main figure:last-of-type figcaption");
  for (const view of rows.views) view.units ??= panel.views[view.panel].units.map(({ name, window }) => (window ? { name, window } : { name }));
  let chosen = 0;

  const SILENT = -128; // what was not there yet, or a method says nothing of

  function strengthsOf(word, at) {
    let start = word * wide;
    for (const view of rows.views.slice(0, at)) start += view.count;
    return [...bytes.subarray(start, start + rows.views[at].count)].map((b) => (b === SILENT ? null : b / 127));
  }

  // The units of a view as they are for a word.
  function unitsOf(word, at) {
    const view = rows.views[at], peak = rows.words[word].peaks[at];
    return strengthsOf(word, at).map((strength, i) =>
      ({ ...view.units[i], strength, value: strength === null ? null : strength * peak }));
  }

  function mixed(strength) {
    const end = strength > 0 ? rows.colours.for : rows.colours.against;
    return end.map((level) => Math.round(255 + Math.min(Math.abs(strength), 1) * (level - 255)));
  }

  function painted(element, strength) {
    const level = mixed(strength ?? 0);
    const bright = rows.colours.grey.reduce((sum, share, i) => sum + share * level[i], 0);
    element.style.background = `rgb(${level})`;
    element.style.color = bright > 140 ? "#1c1e22" : "#ffffff";
    element.classList.toggle("for", strength > 0);
    element.classList.toggle("against", strength < 0);
  }

  function bare(element) {
    element.style.background = element.style.color = "";
    element.classList.remove("for", "against");
  }

  // One picture for each sign, its strength as opacity.
  function heated(look) {
    const columns = look.view.columns, cells = look.units;
    for (const [sign, factor] of [["for", 1], ["against", -1]]) {
      const canvas = document.createElement("canvas");
      canvas.width = columns;
      canvas.height = cells.length / columns;
      const context = canvas.getContext("2d");
      const image = context.createImageData(canvas.width, canvas.height);
      cells.forEach((unit, i) => {
        image.data.set([...rows.colours[sign], Math.round(255 * Math.max(0, factor * (unit.strength ?? 0)))], 4 * i);
      });
      context.putImageData(image, 0, 0);
      look.element.querySelector(`.ground img.${sign}`).src = canvas.toDataURL();
    }
  }

  function laid(word) {
    rows.views.forEach((view, at) => {
      if (view.written) return;
      const units = unitsOf(word, at), mine = panel.views[view.panel];
      mine.units.forEach((unit, i) => Object.assign(unit, units[i]));
      mine.peak = rows.words[word].peaks[at];
    });
    for (const look of views) {
      if (look.stage) heated(look);
      else look.spans.forEach((span, i) => painted(span, look.units[i].strength));
      const silent = look.units.every((unit) => unit.strength === null);
      look.element.hidden = silent && !look.stage;
      const heading = look.element.previousElementSibling;
      if (heading?.classList.contains("stream")) heading.hidden = look.element.hidden;
    }
  }

  function loudest(word) {
    const units = rows.views.flatMap((view, at) => unitsOf(word, at).filter((unit) => Math.abs(unit.strength) > 0.05));
    units.sort((a, b) => Math.abs(b.strength) - Math.abs(a.strength));
    const few = units.slice(0, 3).map((unit) => `${unit.name} ${unit.strength > 0 ? "+" : "−"}${Math.abs(unit.strength).toFixed(2)}`);
    return few.join(", ") || "nothing";
  }

  function show(word) {
    read(views[0], -1);
    laid(word);
    const mine = rows.words[word];
    const before = rows.views.findIndex((view) => view.written);
    const strengths = before < 0 ? [] : strengthsOf(word, before);
    labels.forEach((label, i) => {
      const strength = i === word || i + rows.offset < 0 ? null : strengths[i + rows.offset] ?? null;
      if (strength === null) bare(label); else painted(label, strength);
      label.classList.toggle("now", i === word);
      label.classList.toggle("later", i !== word && strength === null);
    });
    caption.querySelector("b").textContent = mine.title;
    caption.querySelector(".faint").textContent = mine.figure;
    place.textContent = `${word + 1} of ${labels.length}`;
    told.textContent = `${mine.title}, loudest: ${loudest(word)}`;
    slider.value = word;
    slider.setAttribute("aria-valuetext", mine.title);
  }

  function choose(word) {
    chosen = word;
    labels[word].querySelector("input").checked = true;
    const at = labels[word].offsetTop;
    if (at < answer.scrollTop || at + labels[word].offsetHeight > answer.scrollTop + answer.clientHeight) {
      answer.scrollTop = at - answer.clientHeight / 2;
    }
    show(word);
  }

  labels.forEach((label, i) => {
    label.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(i); });
    label.querySelector("input").addEventListener("change", () => choose(i));
  });
  answer.addEventListener("pointerleave", () => show(chosen));
  slider.addEventListener("input", () => choose(Number(slider.value)));

  // What is downloaded has every word.
  function everyWord() {
    return rows.words.map((word, i) => ({
      ...panel, title: word.title, target: word.target, value: word.value,
      views: rows.views.map((view, at) => ({
        stream: view.stream, ...(view.part ? { part: view.part } : {}), kind: view.kind, columns: view.columns,
        peak: word.peaks[at], units: unitsOf(i, at).filter((unit) => unit.value !== null), left_out: [],
      })),
    }));
  }

  for (const kind of Object.keys(files)) {
    const made = files[kind][1];
    files[kind][1] = () => {
      const shown = numbers.panels;
      numbers.panels = everyWord();
      try { return made(); } finally { numbers.panels = shown; }
    };
  }
  document.querySelectorAll(".turning, .told").forEach((element) => { element.hidden = false; });
  choose(0);
})();
