// Curves: series of a run grouped into charts that share a unit, drawn by uPlot in the page's own colours.
import { make, number } from './app.js';

const COLOURS = 10;
const GROUPS = [
  ['Loss', /(^|\/)loss$/],
  ['Probe', /^probe\//],
  ['Validation', /^validation\//],
  ['Scores', /^(final|final_train|test)\//],
  ['Throughput, examples / s', /^throughput\/examples_per_second$/],
  ['Throughput, tokens / s', /^throughput\/tokens_per_second$/],
  ['Learning rate', /^train\/learning_rate$/],
];
const ALONE = /^(health|guard|throughput|time|train|data)\//;
const HIDDEN = /^train\/epoch$/;

/** [title, names] of the charts, the loss first. What shares no unit with anything is drawn alone. */
export function groups(names) {
  const left = names.filter((name) => !HIDDEN.test(name));
  const found = [];
  for (const [title, pattern] of GROUPS) {
    const mine = left.filter((name) => pattern.test(name));
    if (mine.length) found.push([title, mine]);
    mine.forEach((name) => left.splice(left.indexOf(name), 1));
  }
  const rest = new Map();
  for (const name of left) {
    const part = name.split('/')[0];
    const title = ALONE.test(name) ? `${part[0].toUpperCase()}${part.slice(1)}: ${words(name)}` : part;
    rest.set(title, [...(rest.get(title) ?? []), name]);
  }
  return [...found, ...rest];
}

/** What is looked at first; the rest is folded away. */
export function leading(title) { return !/^(Guard|Time|Data|Train): |^Throughput: |^Health: (dead|spread min|uniformity|effective rank$)/.test(title); }

export function words(name) { return name.split('/').slice(1).join('/').replaceAll('_', ' ') || name; }

export function colour(at) { return css(`--s${at % COLOURS}`); }

function css(name) {
  // Computed on an element, a `light-dark()` pair becomes the one colour that holds.
  const probe = make('i', { hidden: true });
  document.body.append(probe);
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A chart of several lines. Lines are {label, points: Map step → value}. */
export class Chart {
  constructor(title, lines, { main = false, axis = 'step', logX = false, drawPoints = false, named = false } = {}) {
    this.title = title;
    this.lines = lines;
    this.options = { main, axis, logX, drawPoints, named };
    this.logY = false;
    this.caption = make('figcaption');
    this.box = make('div', { class: 'plot' });
    this.element = make('figure', { class: main ? 'chart main' : 'chart' }, this.caption, this.box);
    new ResizeObserver(() => this.resize()).observe(this.box);
    document.addEventListener('themed', () => this.draw());
  }

  data() {
    const steps = [...new Set(this.lines.flatMap((line) => [...line.points.keys()]))].sort((a, b) => a - b);
    const good = (value) => (typeof value === 'number' && Number.isFinite(value) && (!this.logY || value > 0) ? value : null);
    return [steps, ...this.lines.map((line) => steps.map((step) => good(line.points.get(step))))];
  }

  /** Draw from nothing: at the start, in another theme, on another scale. */
  draw() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.box.clientWidth) return;
    const [ink, grid] = [css('--muted'), css('--line')];
    const font = '11px system-ui, sans-serif';
    const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const sparse = this.lines.every((line) => line.points.size < 25);
    const few = this.options.drawPoints || sparse;
    const series = this.lines.map((line, at) => ({
      label: line.label, stroke: colour(line.colour ?? at), width: 1.6, spanGaps: true, points: { show: few, size: 5 }, dash: line.dash,
    }));
    this.plot = new uPlot({
      width: this.box.clientWidth,
      height: this.options.main ? 280 : 150,
      scales: { x: { time: false, distr: this.options.logX ? 3 : 1 }, y: { distr: this.logY ? 3 : 1 } },
      axes: [{ ...axis, size: 28, values: (_, at) => at.map((v) => (v === null ? '' : short(v))) },
        { ...axis, size: 56, values: (_, at) => at.map((v) => (v === null ? '' : short(v))) }],
      legend: { show: false },
      cursor: { sync: { key: this.options.axis }, points: { size: 6 }, y: false },
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx)] },
      series: [{}, ...series],
    }, this.data(), this.box);
    this.tell(null);
  }

  /** New values for lines that are there already. */
  update() {
    if (!this.plot) return this.draw();
    this.plot.setData(this.data());
    this.tell(this.plot.cursor.idx);
  }

  resize() {
    if (!this.plot) return this.draw();
    if (this.plot.width !== this.box.clientWidth) this.plot.setSize({ width: this.box.clientWidth, height: this.plot.height });
  }

  /** The legend, with the values under the cursor, else the last ones. */
  tell(at) {
    const steps = this.plot?.data[0] ?? [];
    const spots = this.lines.map((line) => {
      const points = [...line.points.entries()];
      const value = at !== null && at !== undefined ? line.points.get(steps[at]) : points.at(-1)?.[1];
      return [line.label, value];
    });
    const step = at !== null && at !== undefined ? `${this.options.axis} ${number(steps[at])}` : '';
    const legends = spots.map(([label, value], index) => {
      const mark = swatch(this.lines[index].colour ?? index);
      return make('span', { class: 'legend' }, mark, this.lines.length > 1 || this.options.named ? `${label} ` : '', make('b', {}, number(value)));
    });
    this.caption.replaceChildren(make('span', {}, this.title), ...legends, step ? make('span', { class: 'legend' }, step) : '');
    this.box.setAttribute('role', 'img');
    const last = spots.map(([label, value]) => `${label} ${number(value)}`).join(', ');
    this.box.setAttribute('aria-label', `Curve of ${this.title}: ${last}`);
  }
}

export function swatch(at) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'swatch');
  svg.setAttribute('viewBox', '0 0 10 10');
  svg.setAttribute('aria-hidden', 'true');
  const dot = document.createElementNS('http://www.w3.org/2000/svg', 'circle');
  for (const [key, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: `var(--s${at % COLOURS})` })) dot.setAttribute(key, value);
  svg.append(dot);
  return svg;
}

function short(value) {
  const large = Math.abs(value);
  if (large >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (large >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (large >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  if (large > 0 && large < 1e-3) return value.toExponential(0);
  return String(+value.toPrecision(4));
}

/** Points of one series of the API: not-a-number and infinities are left out. */
export function points(series) {
  return new Map(series.steps.map((step, at) => [step, series.values[at]]).filter(([, value]) => typeof value === 'number'));
}
