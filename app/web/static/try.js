// The try-it box: a model's answers, and how near to each other it puts what it is given.
import { call, dataUri, make, number } from './app.js';

const box = document.querySelector('[data-try]');
const form = document.getElementById('try-form');
const answers = document.getElementById('answers');
const MOST = 12;

/** [{name, item}] of what was entered; columns of pairs go together by their place. */
async function inputs() {
  const columns = [];
  for (const field of form.querySelectorAll('[data-column]')) {
    const column = field.dataset.column;
    if (field.dataset.media) {
      const files = [...field.files].slice(0, MOST);
      columns.push(await Promise.all(files.map(async (file) => ({ name: file.name, item: { [column]: await dataUri(file) } }))));
    } else {
      const lines = field.value.split('\n').map((line) => line.trim()).filter(Boolean).slice(0, MOST);
      columns.push(lines.map((line) => ({ name: line, item: { [column]: line } })));
    }
  }
  return columns.flat();
}

function bars(name, answer) {
  const part = make('div', { class: 'panel' }, make('h3', {}, name));
  const shares = Object.entries(answer.probabilities ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 8);
  if (shares.length) {
    const grid = make('div', { class: 'answer' });
    for (const [label, share] of shares) {
      const bar = make('progress', { class: 'bar', max: 1, value: share, 'aria-label': label });
      grid.append(make('span', {}, label), bar, make('span', { class: 'number' }, `${(100 * share).toFixed(1)} %`));
    }
    part.append(grid);
  } else if (typeof answer.text === 'string') part.append(make('p', {}, answer.text));
  else {
    const { object, index, ...rest } = answer;
    part.append(make('pre', { tabindex: 0 }, JSON.stringify(rest, null, 2)));
  }
  return part;
}

function cosine(a, b) {
  let [dot, left, right] = [0, 0, 0];
  for (let at = 0; at < a.length; at += 1) { dot += a[at] * b[at]; left += a[at] ** 2; right += b[at] ** 2; }
  return dot / Math.sqrt(left * right || 1);
}

function nearness(names, vectors) {
  const table = make('table', { class: 'grid' });
  table.append(make('caption', { class: 'hidden' }, 'Cosine similarity of the inputs'));
  const short = (at) => String.fromCharCode(65 + at);
  table.append(make('tr', {}, make('td', {}), ...names.map((_, at) => make('th', { scope: 'col' }, short(at)))));
  names.forEach((name, row) => {
    const cells = vectors.map((other) => {
      const value = cosine(vectors[row], other);
      const cell = make('td', {}, value.toFixed(2));
      cell.style.background = `color-mix(in srgb, var(--wash) ${Math.max(0, Math.min(1, value)) * 100}%, var(--surface))`;
      return cell;
    });
    table.append(make('tr', {}, make('th', { scope: 'row', title: name }, `${short(row)} · ${name}`), ...cells));
  });
  const told = `${names.length} vectors of ${number(vectors[0].length)} numbers; 1 is the same direction.`;
  return make('div', { class: 'panel scroll', tabindex: 0, role: 'region', 'aria-label': 'Similarities' }, make('h3', {}, 'Cosine similarity'), make('p', { class: 'muted' }, told), table);
}

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const what = event.submitter?.value ?? 'embeddings';
  answers.replaceChildren(make('p', { class: 'muted' }, 'Asking the model; the first question loads it…'));
  try {
    const given = await inputs();
    if (!given.length) throw new Error('Give it something to read first.');
    const told = await call('POST', `/v1/${what}`, { model: box.dataset.try, input: given.map((each) => each.item) });
    if (what === 'predictions') answers.replaceChildren(...told.data.map((each, at) => bars(given[at].name, each)));
    else answers.replaceChildren(nearness(given.map((each) => each.name), told.data.map((each) => each.embedding)));
  } catch (error) {
    answers.replaceChildren(make('p', { class: 'problem', role: 'alert' }, error.message));
  }
});
