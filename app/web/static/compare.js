// Several runs over each other: one chart a series, one colour a run.
import { call, toast } from './app.js';
import { Chart, groups, points, swatch, words } from './charts.js';

const box = document.getElementById('curves');
const runs = [...document.querySelectorAll('[data-run]')].map((element, at) => ({ id: element.dataset.run, title: element.dataset.title, at }));
for (const place of document.querySelectorAll('[data-swatch]')) place.append(swatch(Number(place.dataset.swatch)));
let charts = [];

async function load() {
  const told = await Promise.all(runs.map((run) => call('GET', `/v1/jobs/${run.id}/metrics?points=400`)));
  const lines = new Map();
  told.forEach((reply, at) => {
    for (const series of reply.series) {
      if (!lines.has(series.name)) lines.set(series.name, []);
      lines.get(series.name).push({ label: runs[at].title, points: points(series), colour: at });
    }
  });
  const order = groups([...lines.keys()]).flatMap(([, names]) => names);
  charts = order.map((name) => new Chart(name.startsWith('train/') || name.startsWith('validation/') ? name.replace('/', ' ').replaceAll('_', ' ') : words(name), lines.get(name), { main: name === order[0], named: true }));
  box.replaceChildren(...charts.map((each) => each.element));
  if (!charts.length) box.textContent = 'These runs left no curves.';
  charts.forEach((each) => each.draw());
}

document.getElementById('log-y')?.addEventListener('change', (event) => {
  for (const each of charts) { each.logY = event.target.checked; each.draw(); }
});
if (runs.length) load().catch((error) => toast(error.message));
