"use strict";

// Tables: a click on a heading sorts, the box above finds rows.
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table.sorts");
  if (!table) continue;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  heads.forEach((head, column) => {
    const numbers = head.classList.contains("n") || rows.every((row) => !isNaN(row.cells[column].dataset.key || NaN));
    head.querySelector("button").addEventListener("click", () => {
      const first = numbers ? "descending" : "ascending";
      const other = numbers ? "ascending" : "descending";
      const direction = head.getAttribute("aria-sort") === first ? other : first;
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      rows.sort((one, two) => sign * (numbers ? key(one) - key(two) : key(one).localeCompare(key(two))));
      body.append(...rows);
    });
  });
  const found = box.querySelector("output");
  box.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    found.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  });
}

// Curves: the values at the place that is pointed at.
for (const chart of document.querySelectorAll(".chart")) {
  const svg = chart.querySelector("svg");
  const curves = [...svg.querySelectorAll("path.curve")].map((path) => ({
    label: path.dataset.label,
    places: path.getAttribute("d").slice(1).split("L").map((point) => Number(point.split(" ")[0])),
    values: path.dataset.values.split(",").map((value) => value.split(" ")),
  }));
  const [read, at] = [chart.querySelector(".read"), svg.querySelector(".at")];
  if (!curves.length) continue;
  svg.addEventListener("pointermove", (event) => {
    const area = svg.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * svg.viewBox.baseVal.width;
    const nearest = (places) => places.reduce((best, place, index) =>
      Math.abs(place - x) < Math.abs(places[best] - x) ? index : best, 0);
    const found = curves.map(({ label, places, values }) => [label, values[nearest(places)], places[nearest(places)]]);
    at.setAttribute("d", `M${found[0][2]} 12V218`);
    read.textContent = found.map(([label, [x, value]]) => `${label} ${value} at ${svg.dataset.x} ${x}`).join(" · ");
  });
  svg.addEventListener("pointerleave", () => {
    read.textContent = "";
    at.removeAttribute("d");
  });
}

// The confusion matrix of many classes: a map, and a lens that shows a part of it with names and numbers.
const stored = document.getElementById("confusion-data");
if (stored) {
  const { names, cells, size, first } = JSON.parse(stored.textContent);
  const all = names.length;
  const videos = new Map(cells.map(([row, column, number]) => [row * all + column, number]));
  const of = new Array(all).fill(0);
  for (const [row, , number] of cells) of[row] += number;
  const box = document.querySelector(".map-box");
  const frame = box.querySelector(".frame");
  const under = document.querySelector(".under");
  const [head, body] = document.querySelector(".lens table").querySelectorAll("thead tr, tbody");
  let place = [first, first];

  const cell = (tag, content, scope) => {
    const made = document.createElement(tag);
    if (scope) made.scope = scope;
    const inner = document.createElement(scope ? "bdi" : "span");
    inner.textContent = content;
    if (scope === "col") {
      const turned = document.createElement("span");
      turned.append(inner);
      made.append(turned);
    } else {
      made.append(scope ? inner : content);
    }
    return made;
  };
  const within = (start) => Math.max(0, Math.min(all - size, start));
  const show = (row, column) => {
    place = [within(row), within(column)];
    const span = [...Array(size).keys()];
    head.replaceChildren(document.createElement("td"), ...span.map((x) => cell("th", names[place[1] + x], "col")));
    body.replaceChildren(...span.map((y) => {
      const line = document.createElement("tr");
      line.append(cell("th", names[place[0] + y], "row"));
      for (const x of span) {
        const [true_, answered] = [place[0] + y, place[1] + x];
        const number = videos.get(true_ * all + answered);
        const made = cell("td", number ?? "");
        if (number) {
          made.className = true_ === answered ? "right" : "wrong";
          made.style.setProperty("--s", (number / of[true_]).toFixed(2));
        }
        line.append(made);
      }
      return line;
    }));
    const share = (number) => `${(100 * number) / all}%`;
    Object.assign(frame.style, { top: share(place[0]), left: share(place[1]), width: share(size), height: share(size) });
  };
  const at = (event) => {
    const area = box.getBoundingClientRect();
    const index = (from, length) => Math.max(0, Math.min(all - 1, Math.floor((from / length) * all)));
    return [index(event.clientY - area.top, area.height), index(event.clientX - area.left, area.width)];
  };
  box.addEventListener("click", (event) => {
    const [row, column] = at(event);
    show(row - (size >> 1), column - (size >> 1));
  });
  box.addEventListener("pointermove", (event) => {
    const [row, column] = at(event);
    const number = videos.get(row * all + column) ?? 0;
    under.textContent = `${names[row]} → ${names[column]}: ${number} of ${of[row]}`;
  });
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const step = event.shiftKey ? 1 : size >> 1;
    show(place[0] + step * move[0], place[1] + step * move[1]);
  });
  document.querySelector(".overview input").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    const row = names.findIndex((name) => name.toLowerCase() === wanted);
    if (row >= 0) show(row - (size >> 1), row - (size >> 1));
  });
  show(first, first);
}
