// One job, live: its curves grow and its diary fills while it runs.
import { call, duration, make, number, time, toast } from './app.js';
import { Chart, groups, leading, points, words } from './charts.js';

const article = document.querySelector('[data-job]');
const job = article.dataset.job;
const box = document.getElementById('curves');
const lines = new Map(); // series → {label, points}
let charts = [];
let refreshing = null;

function chart() {
  const wanted = groups([...lines.keys()]);
  charts = wanted.map(([title, names], at) => new Chart(title, names.map((name) => lines.get(name)), { main: at === 0 }));
  const open = box.querySelector('details')?.open ?? false;
  const [first, rest] = [charts.filter((each) => leading(each.title)), charts.filter((each) => !leading(each.title))];
  box.replaceChildren(...first.map((each) => each.element));
  if (rest.length) {
    const inside = make('div', { class: 'charts' }, ...rest.map((each) => each.element));
    box.append(make('details', { class: 'more', open }, make('summary', {}, `${rest.length} more curves`), inside));
  }
  for (const each of charts) { each.logY = document.getElementById('log-y').checked && each.title === 'Loss'; each.draw(); }
}

function line(name) {
  if (!lines.has(name)) lines.set(name, { label: name.endsWith('/loss') ? name.split('/')[0] : words(name), points: new Map() });
  return lines.get(name);
}

async function load() {
  const told = await call('GET', box.dataset.metrics);
  for (const series of told.series) line(series.name).points = points(series);
  if (lines.size) chart();
}

function grow(step, metrics) {
  const known = lines.size;
  for (const [name, value] of Object.entries(metrics)) if (typeof value === 'number') line(name).points.set(step, value);
  if (lines.size !== known) chart();
  else charts.forEach((each) => each.update());
}

function show(name, text) {
  const place = document.querySelector(`[data-show="${name}"]`);
  if (place) place.textContent = text;
}

function progress({ status, progress: at, metrics }) {
  const percent = at.percent ?? 0; // not told before there is a first step
  show('percent', `${Math.round(percent)} %`);
  show('stage', at.stage ?? status);
  show('step', number(at.step));
  show('total', at.total_steps ? `of ${number(at.total_steps)}` : ' ');
  show('rate', number(at.examples_per_second));
  show('eta', duration(at.eta_seconds));
  const bar = document.querySelector('#head progress');
  if (bar) bar.value = percent;
  if (at.step && Object.keys(metrics).length) grow(at.step, metrics);
}

function entry(event) {
  const list = document.getElementById('events');
  list.prepend(make('li', { class: `${event.level} new` }, make('span', { class: 'code' }, event.code), ` ${event.message} `, make('span', { class: 'muted' }, time(event.created_at))));
  while (list.children.length > 200) list.lastChild.remove();
  if (event.type === 'state') refresh('head');
  if (event.type === 'checkpoint') refresh('checkpoints');
  if (event.type === 'sample') refresh('samples');
}

/** Fetch a part of the page anew, once for many events at a time. */
const waiting = new Set();
function refresh(id) {
  waiting.add(id);
  refreshing ??= setTimeout(() => {
    refreshing = null;
    for (const each of waiting) htmx.trigger(document.getElementById(each), 'refresh');
    waiting.clear();
  }, 400);
}

function follow() {
  const after = article.dataset.lastEvent;
  const stream = new EventSource(`/v1/jobs/${job}/events${after ? `?after=${after}` : ''}`);
  stream.addEventListener('job.event', (sent) => entry(JSON.parse(sent.data)));
  stream.addEventListener('progress', (sent) => progress(JSON.parse(sent.data)));
  stream.addEventListener('done', () => {
    stream.close();
    load();
    for (const id of ['head', 'samples', 'checkpoints', 'made']) refresh(id);
  });
}

document.getElementById('log-y').addEventListener('change', chart);
document.addEventListener('called', () => refresh('head'));
const log = document.getElementById('log');
log.addEventListener('toggle', async () => {
  if (!log.open) return;
  try {
    const told = await call('GET', log.dataset.log);
    log.querySelector('pre').textContent = told.text || 'Nothing was written yet.';
  } catch (error) { toast(error.message); }
});

load().catch((error) => toast(error.message)).then(() => { if (article.dataset.live === 'yes') follow(); });
