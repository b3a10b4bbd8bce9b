"use strict";
// Draws the charts and filters the lists. Everything that a run says is handled as text.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // plotly reads a little markup in its labels; a name must not be read so.
  function plain(text) {
    return String(text).replace(/[&<>%]/g, (sign) => "&#" + sign.charCodeAt(0) + ";");
  }

  function shade(hex, alpha) {
    const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    return "rgba(" + parts.join(",") + "," + alpha + ")";
  }

  function spell(x) {
    return x >= 1e6 ? x.toExponential(2) : String(Number(x.toPrecision(4)));
  }

  // Round numbers: powers of two for samples, 1, 2 and 5 in each decade for the rest, fewer over many decades.
  function ticks(xs, axis) {
    const low = Math.min(...xs), high = Math.max(...xs), found = [];
    const base = axis === "k" ? 2 : 10, decades = Math.log10(high / low);
    const heads = axis === "k" || decades > 6 ? [1] : decades > 2.5 ? [1, 3] : [1, 2, 5];
    for (let power = Math.floor(Math.log(low) / Math.log(base)); Math.pow(base, power) <= high; power += 1) {
      heads.forEach((head) => found.push(Number((head * Math.pow(base, power)).toPrecision(6))));
    }
    return found;
  }

  function checked(box, name) {
    return new Set(Array.from(box.querySelectorAll("input[name^='" + name + "']:checked"), (input) => input.value));
  }

  function traces(data, box, axis) {
    const arms = checked(box, "arm"), selectors = checked(box, "selector"), shown = checked(box, "show");
    const ink = getComputedStyle(document.body).color;
    const made = [];
    data.series.forEach((one) => {
      if (one.axis !== axis || !arms.has(one.arm) || !selectors.has(one.selector)) return;
      if (one.free && !shown.has("free")) return;
      const colour = one.colour === "#000000" && dark.matches ? "#bbbbbb" : one.colour;
      const x = one.points.map((p) => p[0]);
      const name = one.arm + ", " + one.selector + (one.kind === "modelled" ? ", modelled" : "") +
        (one.free ? ", scoring not charged" : "");
      if (shown.has("interval") && !one.free) {
        made.push({
          x: x.concat(x.slice().reverse()), hoverinfo: "skip", mode: "lines", line: { width: 0 },
          y: one.points.map((p) => p[3]).concat(one.points.map((p) => p[2]).reverse()),
          fill: "toself", fillcolor: shade(colour, data.series.length > 24 ? 0.06 : 0.14), showlegend: false,
        });
      }
      made.push({
        x: x, y: one.points.map((p) => p[1]), name: plain(name), mode: one.free ? "lines" : "lines+markers",
        line: { color: colour, width: one.free ? 1.2 : 2, dash: one.dash },
        marker: { symbol: one.kind === "modelled" ? one.symbol + "-open" : one.symbol, size: 7, color: colour,
                  line: { color: ink, width: 0 } },
        hovertext: one.points.map((p) => "<b>" + plain(name) + "</b><br>" + p[1].toFixed(1) + " %, 95 % interval " +
          p[2].toFixed(1) + " to " + p[3].toFixed(1) + "<br>at " + spell(p[0]) + ", " + p[4] + " problems"),
        hoverinfo: "text",
      });
    });
    return made;
  }

  function layout(data, box, axis) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim(), rule = style.getPropertyValue("--rule").trim();
    const paper = style.getPropertyValue("--paper").trim();
    const label = data.axes.find((one) => one.name === axis).label;
    const line = { gridcolor: rule, linecolor: ink, zeroline: false, ticks: "outside", tickcolor: ink, automargin: true };
    const xs = data.series.filter((one) => one.axis === axis).flatMap((one) => one.points.map((p) => p[0]));
    const log = checked(box, "show").has("log") && xs.every((x) => x > 0);
    const places = log ? ticks(xs, axis) : null;
    const fixed = log ? { tickmode: "array", tickvals: places, ticktext: places.map(spell) } : { nticks: 8 };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
      font: { color: ink, size: 14, family: "system-ui, sans-serif" }, margin: { l: 60, r: 15, t: 10, b: 50 },
      height: 420, dragmode: false,
      xaxis: Object.assign({ title: { text: label }, type: log ? "log" : "linear", exponentformat: "SI" }, fixed, line),
      yaxis: Object.assign({ title: { text: "accuracy (%)" }, range: [0, 103], dtick: 20 }, line),
      hoverlabel: { bgcolor: paper, bordercolor: ink, font: { color: ink } },
    };
  }

  function draw(box) {
    const data = JSON.parse(box.querySelector("script[type='application/json']").textContent);
    const plot = box.querySelector(".plot");
    const axis = box.querySelector("input[name^='axis']:checked").value;
    const config = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset" };
    return Plotly.react(plot, traces(data, box, axis), layout(data, box, axis), config);
  }

  function setUpChart(box) {
    box.addEventListener("change", () => draw(box));
    dark.addEventListener("change", () => draw(box));
    draw(box).then(() => { box.dataset.drawn = "yes"; });
  }

  // A list shows the entries whose tags hold every chosen word and whose text holds what is typed.
  function setUpList(list) {
    const entries = Array.from(list.querySelectorAll(list.dataset.entries));
    const told = list.querySelector(".told"), box = list.querySelector(".filter");
    let words = null;
    function apply() {
      const chosen = Array.from(box.querySelectorAll("select"), (one) => one.value).filter(Boolean);
      const search = box.querySelector("input[type=search]");
      const typed = search ? search.value.toLowerCase().trim() : "";
      if (typed && !words) {
        words = entries.map((entry) => (entry.querySelector(".words") || entry).textContent.toLowerCase());
      }
      let count = 0;
      entries.forEach((entry, at) => {
        const tags = entry.dataset.tags.split(" ");
        const fits = chosen.every((word) => tags.includes(word)) && (!typed || words[at].includes(typed));
        entry.hidden = !fits;
        count += fits;
      });
      told.textContent = count + " of " + entries.length + " shown";
    }
    ["input", "change"].forEach((kind) => box.addEventListener(kind, apply));
    box.addEventListener("submit", (event) => event.preventDefault());
    box.hidden = false;
    apply();
  }

  document.querySelectorAll(".chart").forEach((box) => {
    box.hidden = false;
    setUpChart(box);
  });
  document.querySelectorAll("[data-entries]").forEach(setUpList);
})();
