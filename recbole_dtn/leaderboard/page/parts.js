// Elements, numbers and scales.

const SVG = "http://www.w3.org/2000/svg";
const NONE = "–";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  // Text is always added as text: names are never read as markup.
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function html(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function defined(value) {
  return value !== null && value !== undefined;
}

// Half the width of a 95 % interval, in standard errors.
const NORMAL = 1.959964;

function decimal(value, places = 4) {
  return defined(value) ? value.toFixed(places) : NONE;
}

function grouped(value) {
  return defined(value) ? Math.round(value).toLocaleString("en-US") : NONE;
}

function brief(value) {
  const steps = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, unit] of steps) if (value >= size) return String(Number((value / size).toPrecision(3))) + unit;
  return String(Number(value.toPrecision(3)));
}

function clipped(text, longest) {
  return text.length <= longest ? text : text.slice(0, Math.max(longest - 1, 1)) + "…";
}

// Round numbers between two values, about `wanted` of them.
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) || 10);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
  return found;
}

// Of a logarithmic axis: 1, 2 and 5 times powers of ten; the powers alone where these are many.
function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
  }
  const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  const powers = inside.filter((value) => Math.abs(Math.log10(value) % 1) < 1e-9);
  return inside.length > 6 && powers.length > 1 ? powers : inside;
}

function places(step) {
  return Math.min(Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)), 6);
}

function scale(low, high, from, to, logarithmic = false) {
  const at = logarithmic ? Math.log10 : (value) => value;
  const span = at(high) - at(low) || 1;
  return (value) => from + ((at(value) - at(low)) / span) * (to - from);
}

// Lowest and highest of the defined values, with some room on both sides.
function extent(values, room = 0.05) {
  const known = values.filter(defined);
  if (!known.length) return [0, 1];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const more = (high - low) * room || Math.abs(high) * 0.01 || 0.5;
  return [low - more, high + more];
}
