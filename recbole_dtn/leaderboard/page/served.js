// Asks the server whether more runs have ended; a click shows them, so that nothing moves under a reader.

const shownVersion = document.querySelector("h1").dataset.version;
const newer = html("button", { type: "button", class: "newer", hidden: true, click: () => location.reload() }, "More runs have ended: show them");
document.querySelector("h1").after(newer);
setInterval(async () => {
  try {
    const answer = await fetch("version", { cache: "no-store" });
    if (answer.ok && (await answer.text()) !== shownVersion) newer.hidden = false;
  } catch {
    // The server has ended; the page stays as it is.
  }
}, 3000);
