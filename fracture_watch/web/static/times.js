// Shows when something was as people say it; the exact time stays in the tooltip.
const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
const spoken = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
window.showTimes = (root = document) => {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime), seconds = (Date.now() - at) / 1000;
    const [unit, length] = units.find(([, size]) => seconds >= size) ?? [];
    time.title = at.toLocaleString();
    time.textContent = !unit ? "just now" : seconds > 14 * 86400 ? at.toLocaleDateString() : spoken.format(-Math.floor(seconds / length), unit);
  }
};
showTimes();
setInterval(showTimes, 30000);
