"use strict";
// Sorting: by the numbers that fields carry, else by number or text as shown; what has no value stays last.
function valueOf(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}
function isLost(value, column) {
  return value === "" || (column.numeric && typeof value !== "number");
}
function compare(first, second) {
  return typeof first === "number" && typeof second === "number" ? first - second : String(first).localeCompare(String(second));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row.cells[index]) }));
    const column = { numeric: rows.some(({ value }) => typeof value === "number") };
    rows.sort((a, b) => isLost(a.value, column) - isLost(b.value, column) || direction * compare(a.value, b.value));
    table.tBodies[0].append(...rows.map(({ row }) => row));
  }));
}
