// Looks at a page as a careful reader would: contrast, sizes of targets, names of controls, headings.
() => {
  const faults = [];
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = (node) => {
    const layers = [];
    for (let one = node; one; one = one.parentElement) layers.push(colour(getComputedStyle(one).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [1, 1, 1, 1]);
  };
  const light = (parts) => {
    const [r, g, b] = parts.slice(0, 3).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const shown = (node) =>
    node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !node.closest(".sr, .skip");
  const name = (node) => `<${node.tagName.toLowerCase()} class="${node.getAttribute("class") ?? ""}"> ${node.textContent.trim().slice(0, 40)}`;

  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.nodeValue.trim());
    if (!own || !shown(node) || node.closest("[disabled]") || node.closest("option")) continue;
    const style = getComputedStyle(node);
    const below = ground(node);
    const ink = over(colour(node instanceof SVGElement ? style.fill : style.color), below);
    const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${name(node)}`);
  }

  const inText = (node) => getComputedStyle(node).display === "inline" && node.closest("p, dd, li > span");
  for (const node of document.querySelectorAll("a[href], button, input, select, textarea, summary")) {
    if (!shown(node) || node.type === "hidden") continue;
    const box = node.getBoundingClientRect();
    if ((box.width < 24 || box.height < 24) && !inText(node)) {
      // WCAG 2.5.8 also allows smaller targets with room around them: a circle of 24 px that touches no other target.
      const label = node.closest("label")?.getBoundingClientRect();
      if (!label || label.width < 24 || label.height < 24)
        faults.push(`target ${box.width.toFixed(1)}x${box.height.toFixed(1)}: ${name(node)}`);
    }
    const labelled = node.getAttribute("aria-label") || node.labels?.[0]?.textContent.trim() ||
      (/^(A|BUTTON|SUMMARY)$/.test(node.tagName) && node.textContent.trim());
    if (!labelled && !node.closest("[aria-hidden=true]") && node.getAttribute("aria-hidden") !== "true")
      faults.push(`no name: ${name(node)}`);
  }

  const headings = document.querySelectorAll("h1").length;
  if (headings !== 1) faults.push(`${headings} h1`);
  const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
  for (const id of new Set(ids.filter((one, at) => ids.indexOf(one) !== at))) faults.push(`id twice: ${id}`);
  if (document.documentElement.scrollWidth > innerWidth) {
    const wide = [...document.querySelectorAll("body *")].filter((one) => shown(one) && one.getBoundingClientRect().right > innerWidth + 1);
    faults.push(`scrolls to ${document.documentElement.scrollWidth}: ${wide.slice(0, 3).map(name).join("; ")}`);
  }
  return [...new Set(faults)];
}
