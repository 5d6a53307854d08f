// The form for a job, drawn from JSON schemas: the spec's own, and the catalogue's for objectives, tasks and backbones.
import { call, make, number, size, toast } from './app.js';
import { field } from './fields.js';

const form = document.getElementById('job-form');
const place = document.getElementById('fields');
const kind = document.getElementById('type');
const [send, checking, problem, estimate, resolved] = ['send', 'checking', 'problem', 'estimate', 'resolved'].map((id) => document.getElementById(id));
const request = form.querySelector('aside .command pre');
const wanted = JSON.parse(form.dataset.spec);
const TRAINED = ['pretrain', 'finetune'];
const FIRST = ['dataset', 'objective', 'model', 'task', 'test_dataset', 'backbone', 'format', 'labels', 'arms', 'budget'];
const known = {}; // what the server has: schema, datasets, models, and catalogues by modality
let fields = new Map();
let round = 0;

async function everything(path) {
  const told = await call('GET', `/v1/${path}?limit=100`);
  return told.data;
}

/** Objectives, backbones and tasks that fit the data. */
async function catalogue(modality) {
  const query = modality ? `?modality=${modality}` : '';
  const [objectives, backbones, tasks] = await Promise.all(['objectives', 'backbones', 'tasks'].map((list) => call('GET', `/v1/${list}${query}`)));
  return { objectives: objectives.data, backbones: backbones.data, tasks: tasks.data };
}

function modality() {
  const dataset = known.datasets.find((each) => each.id === fields.get('dataset')?.value());
  return dataset?.modality ?? known.models.find((each) => each.id === fields.get('model')?.value())?.modality;
}

function spec() {
  const body = { type: kind.value };
  for (const [name, one] of fields) { const value = one.value(); if (value !== undefined) body[name] = value; }
  return body;
}

async function draw(values) {
  const mapping = known.schema.discriminator.mapping;
  const shape = known.schema.$defs[mapping[kind.value].split('/').at(-1)];
  document.getElementById('type-hint').textContent = (shape.description ?? '').split('\n\n')[0];
  const dataset = known.datasets.find((each) => each.id === values.dataset);
  known.catalogue = await catalogue(dataset?.modality);
  const [main, more] = [make('div'), make('div')];
  fields = new Map();
  const names = Object.keys(shape.properties).filter((name) => name !== 'type');
  const rank = (name) => { const at = FIRST.indexOf(name); return at < 0 ? 99 : at; };
  for (const name of names.sort((a, b) => rank(a) - rank(b))) {
    const one = field(name, shape.properties[name], { known, required: (shape.required ?? []).includes(name), root: known.schema });
    if (values[name] !== undefined && values[name] !== null) one.set(values[name]);
    fields.set(name, one);
    const needed = (shape.required ?? []).includes(name);
    (needed || (rank(name) < 99 && !(name === 'model' && kind.value === 'pretrain')) ? main : more).append(one.element);
  }
  place.replaceChildren(main, make('details', {}, make('summary', {}, `${more.children.length} more settings`), more));
}

function wrong(error) {
  problem.textContent = error?.message ?? '';
  problem.hidden = !error;
  for (const each of form.querySelectorAll('[aria-invalid]')) each.removeAttribute('aria-invalid');
  if (!error?.param) return;
  const parts = error.param.split('.');
  while (parts.length) {
    const found = form.querySelector(`[data-path="${CSS.escape(parts.join('.'))}"]`);
    if (found) { found.setAttribute('aria-invalid', 'true'); found.closest('details')?.setAttribute('open', ''); return; }
    parts.pop();
  }
}

function facts(told) {
  const rows = [
    ['steps', told.steps === null ? 'as many as fit the minutes' : number(told.steps)],
    ['examples per epoch', number(told.examples_per_epoch)],
    ['parameters', number(told.parameters)],
    ['of these trained', number(told.trained_parameters)],
    ['memory, about', size(told.memory_bytes)],
  ];
  return rows.map(([name, value]) => make('div', {}, make('dt', {}, name), make('dd', {}, value)));
}

/** Ask the server what this would be. An answer that a newer question has overtaken is let go. */
async function preview() {
  const [mine, body] = [(round += 1), spec()];
  request.textContent = `curl ${form.dataset.origin}/v1/jobs -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`;
  if (!TRAINED.includes(body.type)) { estimate.replaceChildren(); resolved.hidden = true; wrong(null); return; }
  checking.textContent = 'checking…';
  try {
    const told = await call('POST', '/v1/jobs/estimate', body);
    if (mine !== round) return;
    wrong(null);
    estimate.replaceChildren(...facts(told));
    resolved.querySelector('pre').textContent = JSON.stringify(told.resolved_spec, null, 2);
    resolved.hidden = false;
  } catch (error) {
    if (mine !== round) return;
    estimate.replaceChildren();
    resolved.hidden = true;
    // What is only not filled in yet is no mistake.
    wrong(error.code === 'missing_field' ? null : error);
    if (error.code === 'missing_field') estimate.replaceChildren(make('p', { class: 'muted' }, `Still to choose: ${error.param}.`));
  } finally {
    if (mine === round) checking.textContent = '';
  }
}

let timer = null;
function soon() { clearTimeout(timer); timer = setTimeout(preview, 350); }

form.addEventListener('input', soon);
form.addEventListener('change', async (event) => {
  if (event.target === kind) await draw({ dataset: fields.get('dataset')?.value(), model: fields.get('model')?.value() });
  else if (event.target.dataset.path === 'dataset' && modality() !== known.modality) await draw({ ...spec(), objective: undefined, task: undefined, backbone: undefined });
  known.modality = modality();
  soon();
});
form.addEventListener('submit', async (event) => {
  event.preventDefault();
  send.disabled = true;
  try {
    const job = await call('POST', '/v1/jobs', spec());
    location.assign(`/ui/jobs/${job.id}`);
  } catch (error) {
    wrong(error);
    send.disabled = false;
    problem.scrollIntoView({ block: 'nearest' });
  }
});

async function start() {
  const [schema, datasets, models] = await Promise.all([call('GET', '/ui/job-schema.json'), everything('datasets'), everything('models')]);
  Object.assign(known, { schema, datasets: datasets.filter((each) => each.status === 'ready'), models });
  kind.value = wanted.type ?? 'pretrain';
  const newest = known.datasets.find((each) => (kind.value === 'finetune' ? each.labelled : true))?.id;
  await draw({ dataset: newest, ...wanted });
  known.modality = modality();
  form.dataset.ready = 'yes';
  await preview();
}
start().catch((error) => toast(error.message));
