// The search box of a dataset: its rows nearest to what is given, or to one of them.
import { call, dataUri, make, number } from './app.js';

const form = document.getElementById('search-form');
const found = document.getElementById('search-found');
const LIMIT = 12;

/** What was entered, as the API takes a query; null = nothing. */
async function query() {
  const item = {};
  for (const field of form.querySelectorAll('[data-column]')) {
    const { column, media } = field.dataset;
    if (media && field.files.length) item[column] = await dataUri(field.files[0]);
    else if (!media && field.value.trim()) item[column] = field.value.trim();
  }
  return Object.keys(item).length ? item : null;
}

function shown(row) {
  const { image, audio, ...words } = row.preview ?? {};
  const media = `/ui/datasets/${form.dataset.dataset}/rows/${row.row}`;
  const parts = [];
  if (image) parts.push(make('a', { href: media }, make('img', { src: image, alt: row.label || row.source || '' })));
  if (audio) parts.push(make('img', { src: audio, alt: `spectrogram of ${row.source}` }), make('audio', { controls: '', preload: 'none', src: media }));
  const text = Object.values(words).filter((word) => typeof word === 'string').join(' · ');
  const near = make('button', { type: 'button', class: 'small' }, 'More like it');
  near.addEventListener('click', () => ask({ dataset: form.dataset.dataset, row: row.row }, `row ${number(row.row)}`));
  const caption = make('figcaption', {}, text, text ? ' ' : '');
  if (row.label !== null) caption.append(make('span', { class: 'tag' }, row.label), ' ');
  caption.append(make('span', { class: 'muted' }, `${row.score.toFixed(3)} · ${row.source ?? `row ${number(row.row)}`}`), ' ', near);
  return make('figure', { class: 'card' }, ...parts, caption);
}

let asked = 0; // a slow answer to an earlier question is not shown over a later one's

async function ask(given, words) {
  const mine = ++asked;
  const show = (...parts) => mine === asked && found.replaceChildren(...parts);
  show(make('p', { class: 'muted' }, 'Asking the model; the first question loads it…'));
  try {
    const wanted = await given;
    if (wanted === null) throw new Error('Give it something to look for first.');
    const body = { query: wanted, model: form.elements.model.value, limit: LIMIT };
    const label = form.elements.label?.value;
    if (label) body.filter = { label };
    const told = await call('POST', `/v1/datasets/${form.dataset.dataset}/search`, body);
    const { kind, rows, recall } = told.index;
    const how = kind === 'exact' ? `all ${number(rows)} rows were looked at` : `by an index of ${number(rows)} rows that finds ${Math.round(100 * recall)} % of the nearest`;
    const head = make('p', { class: 'muted' }, `Nearest to ${words}, by the cosine of the vectors; ${how}.`);
    show(head, make('div', { class: 'samples' }, ...told.data.map(shown)));
  } catch (error) {
    show(make('p', { class: 'problem', role: 'alert' }, error.message));
  }
}

form?.addEventListener('submit', (event) => {
  event.preventDefault();
  ask(query(), 'what you gave');
});
