// A dataset as a model sees it: the first two principal components of its vectors, found by power iteration.
import { call, make, number, toast } from './app.js';
import { colour, swatch } from './charts.js';

const box = document.querySelector('[data-vectors]');
const canvas = document.getElementById('map');
const tip = document.getElementById('tip');
const row = document.getElementById('map-row');
const SHOWN_LABELS = 9;
let told = null;
let places = []; // [x, y] in 0 to 1 of each row
let kinds = []; // index of the colour of each row
const off = new Set();
let chosen = -1;

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** Rows of unit length, less their mean: neither length nor the common direction is what a map should show. */
function centred(flat, count, width) {
  const mean = new Float64Array(width);
  for (let at = 0; at < count; at += 1) {
    let length = 0;
    for (let k = 0; k < width; k += 1) length += flat[at * width + k] ** 2;
    length = Math.sqrt(length) || 1;
    for (let k = 0; k < width; k += 1) { flat[at * width + k] /= length; mean[k] += flat[at * width + k] / count; }
  }
  for (let at = 0; at < count; at += 1) for (let k = 0; k < width; k += 1) flat[at * width + k] -= mean[k];
}

/** Scores of the rows on the strongest direction, which is then taken out of them; and the variance it held. */
function component(flat, count, width) {
  const scores = new Float64Array(count);
  let direction = Float64Array.from({ length: width }, (_, k) => Math.sin(k + 1));
  for (let turn = 0; turn < 60; turn += 1) {
    const next = new Float64Array(width);
    for (let at = 0; at < count; at += 1) {
      let score = 0;
      for (let k = 0; k < width; k += 1) score += flat[at * width + k] * direction[k];
      scores[at] = score;
      for (let k = 0; k < width; k += 1) next[k] += score * flat[at * width + k];
    }
    const length = Math.hypot(...next) || 1;
    direction = next.map((value) => value / length);
  }
  let kept = 0;
  for (let at = 0; at < count; at += 1) {
    let score = 0;
    for (let k = 0; k < width; k += 1) score += flat[at * width + k] * direction[k];
    scores[at] = score;
    kept += score * score;
    for (let k = 0; k < width; k += 1) flat[at * width + k] -= score * direction[k];
  }
  return [scores, kept];
}

function scaled(scores) {
  const sorted = [...scores].sort((a, b) => a - b);
  const [low, high] = [sorted[0], sorted.at(-1)];
  return Array.from(scores, (score) => (score - low) / (high - low || 1));
}

function pixel(at) {
  const pad = 18;
  return [pad + places[at][0] * (canvas.clientWidth - 2 * pad), pad + (1 - places[at][1]) * (canvas.clientHeight - 2 * pad)];
}

function draw() {
  const scale = devicePixelRatio;
  [canvas.width, canvas.height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const colours = [...Array(10).keys()].map(colour);
  const radius = places.length > 800 ? 2.6 : 3.6;
  places.forEach((_, at) => {
    if (off.has(kinds[at])) return;
    const [x, y] = pixel(at);
    pen.globalAlpha = 0.75;
    pen.fillStyle = colours[kinds[at]];
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
  });
  if (chosen >= 0) {
    const [x, y] = pixel(chosen);
    pen.globalAlpha = 1;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, radius + 4, 0, 2 * Math.PI);
    pen.stroke();
  }
}

function choose(at) {
  chosen = at;
  tip.hidden = at < 0;
  if (at >= 0) {
    const [x, y] = pixel(at);
    const label = told.labels[at];
    const words = `${label ? `${label}: ` : ''}${told.words[at]}`;
    tip.replaceChildren(words);
    if (told.media === 'image') tip.append(make('img', { src: `/ui/datasets/${told.dataset}/rows/${told.rows[at]}`, alt: '', width: 96 }));
    tip.style.left = `${Math.min(x + 12, canvas.clientWidth - 200)}px`;
    tip.style.top = `${y + 12}px`;
    row.textContent = `Row ${number(told.rows[at])} · ${words}`;
  }
  draw();
}

function nearest(x, y) {
  let [best, found] = [400, -1];
  places.forEach((_, at) => {
    if (off.has(kinds[at])) return;
    const [left, top] = pixel(at);
    const far = (left - x) ** 2 + (top - y) ** 2;
    if (far < best) [best, found] = [far, at];
  });
  return found;
}

function legend(names) {
  const keys = document.getElementById('map-keys');
  keys.replaceChildren(...names.map((name, at) => {
    const button = make('button', { type: 'button', 'aria-pressed': 'true' }, swatch(at), name);
    button.addEventListener('click', () => {
      const shown = button.getAttribute('aria-pressed') === 'true';
      button.setAttribute('aria-pressed', String(!shown));
      if (shown) off.add(at); else off.delete(at);
      choose(-1);
    });
    return button;
  }));
}

async function load() {
  told = await call('GET', box.dataset.vectors);
  const [count, width] = [told.rows.length, told.dim];
  const flat = floats(told.vectors);
  centred(flat, count, width);
  const total = flat.reduce((sum, value) => sum + value * value, 0) || 1;
  const [first, share] = component(flat, count, width);
  const [second, more] = component(flat, count, width);
  const [xs, ys] = [scaled(first), scaled(second)];
  places = xs.map((x, at) => [x, ys[at]]);
  const counts = new Map();
  for (const label of told.labels) counts.set(label ?? 'no label', (counts.get(label ?? 'no label') ?? 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const shown = names.length > SHOWN_LABELS + 1 ? [...names.slice(0, SHOWN_LABELS), 'others'] : names;
  kinds = told.labels.map((label) => { const at = shown.indexOf(label ?? 'no label'); return at < 0 ? SHOWN_LABELS : at; });
  legend(shown);
  document.getElementById('map-told').textContent = `${number(count)} rows; these two directions hold ${Math.round((100 * (share + more)) / total)} % of the differences.`;
  draw();
  canvas.dataset.drawn = 'yes';
}

canvas.addEventListener('pointermove', (event) => {
  const edge = canvas.getBoundingClientRect();
  const at = nearest(event.clientX - edge.left, event.clientY - edge.top);
  if (at !== chosen) choose(at);
});
canvas.addEventListener('pointerleave', () => choose(-1));
canvas.addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || !places.length) return;
  event.preventDefault();
  let at = chosen;
  do { at = (at + step + places.length) % places.length; } while (off.has(kinds[at]) && at !== chosen);
  choose(at);
});
new ResizeObserver(() => { if (places.length) draw(); }).observe(canvas);
document.addEventListener('themed', () => { if (places.length) draw(); });
load().catch((error) => toast(error.message));
