"use strict";
// One measure at a time. Without this script all tables are shown below each other.
for (const choice of document.querySelectorAll("fieldset.choice")) {
  const tables = [...choice.parentElement.querySelectorAll("[data-measure]")];
  const show = () => {
    const chosen = choice.querySelector("input:checked").value;
    for (const table of tables) table.hidden = table.dataset.measure !== chosen;
  };
  choice.hidden = false;
  choice.addEventListener("change", show);
  show();
}
// A field of the matrix leads to its cells, which are folded.
function unfold() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus();
  }
}
addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && link.hash === location.hash) unfold();
});
unfold();
