// The theme's search dialog has no name for screen readers.
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");

// Wide tables scroll inside a box that the theme puts around them: keys must reach it too.
addEventListener("load", () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap")) box.tabIndex = 0;
});
