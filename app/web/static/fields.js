// One field of a form from its JSON schema. Every field has an element, `value()` (undefined = left out) and `set(v)`.
import { make } from './app.js';

let count = 0;

/** A field called `path` (dotted); `about`: {known, required, root} for references. */
export function field(path, shape, about) {
  const name = path.split('.').at(-1);
  if (name === 'backbone') return choice(path, shape, about, about.known.catalogue.backbones.map((each) => [each.id, `${each.id} · ${each.family}, ${each.defaults.width} wide, ${each.defaults.depth} deep`]), 'the recipe chooses by the data');
  if (name === 'objective' || name === 'task') return named(path, about, about.known.catalogue[`${name}s`], shape);
  const real = resolve(plain(resolve(shape, about.root)), about.root);
  const told = { ...real, description: shape.description ?? real.description, default: shape.default ?? real.default };
  if (/^\^ds_/.test(real.pattern ?? '')) return choice(path, told, about, about.known.datasets.map((each) => [each.id, `${each.name} · ${each.modality}, ${each.rows} rows${each.labelled ? `, ${each.labelled} labelled` : ''}`]), 'none');
  if (/^\^mdl_/.test(real.pattern ?? '')) return choice(path, told, about, about.known.models.map((each) => [each.id, `${each.name} · ${each.task ?? each.objective ?? 'import'}, ${each.modality}`]), 'none');
  if (name === 'modality' && real.oneOf) return group(path, { ...told, ...ours(real, about) }, about, { name: modalityOf(about) });
  if (name === 'budget') return budget(path, real, about);
  if (real.enum) return choice(path, told, about, real.enum.map((each) => [each, each]), word(told.default));
  if (real.type === 'boolean') return choice(path, told, about, [['true', 'yes'], ['false', 'no']], { true: 'yes', false: 'no' }[told.default] ?? 'the recipe decides', (text) => text === 'true');
  if (real.type === 'integer' || real.type === 'number') return typed(path, told, about);
  if (real.type === 'array' && real.items?.enum) return several(path, told, about);
  if (real.type === 'array') return json(path, told, about, (text) => text.split(/[\s,]+/).filter(Boolean).map(numeric), (value) => value.join(', '));
  if (real.properties) return group(path, { ...told, ...real }, about);
  if (real.type === 'object') return json(path, told, about, pairs, (value) => Object.entries(value).map(([key, text]) => `${key}=${text}`).join('\n'), 'name=value, one a line');
  if (real.type === 'string') return typed(path, told, about);
  return json(path, told, about, JSON.parse, JSON.stringify);
}

function resolve(shape, root) {
  return shape.$ref ? { ...root.$defs[shape.$ref.split('/').at(-1)], ...('default' in shape ? { default: shape.default } : {}) } : shape;
}

/** Of "this or null" the this: what is left empty is left out. */
function plain(shape) {
  const inside = shape.anyOf?.filter((each) => each.type !== 'null');
  if (!inside || inside.length !== 1) return shape;
  return { ...inside[0], default: shape.default, description: shape.description };
}

function modalityOf(about) {
  return about.known.catalogue.objectives[0] && about.known.modality;
}

function ours(shape, about) {
  const found = shape.discriminator?.mapping?.[modalityOf(about)];
  return found ? about.root.$defs[found.split('/').at(-1)] : { properties: {} };
}

function words(path) { return path.split('.').at(-1).replaceAll('_', ' ').replace(/^./, (letter) => letter.toUpperCase()); }
function word(value) { return value === null || value === undefined ? 'default' : `default: ${value}`; }
function numeric(text) { const value = Number(text); return Number.isNaN(value) ? text : value; }

function pairs(text) {
  return Object.fromEntries(text.split('\n').filter((line) => line.includes('=')).map((line) => [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1).trim()]));
}

function limits(shape) {
  const low = shape.minimum ?? shape.exclusiveMinimum;
  const high = shape.maximum ?? shape.exclusiveMaximum;
  if (low === undefined && high === undefined) return '';
  if (high === undefined) return `from ${low}`;
  return low === undefined ? `up to ${high}` : `${low} to ${high}`;
}

function wrap(path, shape, control, required) {
  const id = `field-${(count += 1)}`;
  const hint = [shape.description, limits(shape)].filter(Boolean).join(' · ');
  control.id = id;
  control.dataset.path = path;
  if (required) control.setAttribute('aria-required', 'true');
  if (hint) control.setAttribute('aria-describedby', `${id}-hint`);
  return make('div', { class: 'field' }, make('label', { for: id }, words(path)), control, hint ? make('p', { class: 'hint', id: `${id}-hint` }, hint) : null);
}

function choice(path, shape, about, options, empty, read = (text) => text) {
  const select = make('select', {}, make('option', { value: '' }, about.required ? 'choose…' : empty));
  for (const [value, text] of options) select.append(make('option', { value }, text));
  const set = (value) => {
    const text = typeof value === 'object' && value ? value.name : String(value);
    if (![...select.options].some((each) => each.value === text)) select.append(make('option', { value: text }, text));
    select.value = text;
  };
  return { element: wrap(path, shape, select, about.required), value: () => (select.value === '' ? undefined : read(select.value)), set };
}

function typed(path, shape, about) {
  const digits = shape.type === 'integer' || shape.type === 'number';
  const told = shape.default === null || shape.default === undefined ? (about.required ? '' : 'the recipe’s') : String(shape.default);
  const input = make('input', { type: digits ? 'number' : 'text', step: digits ? 'any' : undefined, placeholder: told, maxlength: shape.maxLength });
  const read = () => (input.value === '' ? undefined : digits ? Number(input.value) : input.value);
  return { element: wrap(path, shape, input, about.required), value: read, set: (value) => { input.value = value; } };
}

function json(path, shape, about, read, write, hint = '') {
  const input = make('textarea', { rows: 2, placeholder: hint || 'default' });
  const value = () => {
    if (!input.value.trim()) return undefined;
    try { return read(input.value); } catch { return input.value; }
  };
  const set = (given) => { input.value = given && Object.keys(given).length ? write(given) : ''; };
  return { element: wrap(path, shape, input, about.required), value, set };
}

function several(path, shape, about) {
  const boxes = shape.items.enum.map((each) => make('input', { type: 'checkbox', value: each }));
  const ticks = make('div', { class: 'ticks' }, ...boxes.map((box) => make('label', {}, box, ` ${box.value.replaceAll('_', ' ')}`)));
  const element = make('fieldset', { 'data-path': path }, make('legend', {}, words(path)), ticks);
  const set = (value) => boxes.forEach((box) => { box.checked = value.includes(box.value); });
  if (shape.default) set(shape.default);
  const read = () => { const found = boxes.filter((box) => box.checked).map((box) => box.value); return found.length ? found : undefined; };
  return { element, value: read, set };
}

/** Fields of an object; `fixed` goes along as soon as one of them is filled in. */
function group(path, shape, about, fixed = {}) {
  const inner = new Map();
  for (const [name, each] of Object.entries(shape.properties ?? {})) if (!(name in fixed) && name !== 'name' || each.enum) inner.set(name, field(`${path}.${name}`, each, { ...about, required: false }));
  const element = make('fieldset', {}, make('legend', {}, words(path)), ...[...inner.values()].map((each) => each.element));
  if (!inner.size) element.hidden = true;
  const value = () => {
    const found = {};
    for (const [name, each] of inner) { const one = each.value(); if (one !== undefined) found[name] = one; }
    return Object.keys(found).length ? { ...fixed, ...found } : undefined;
  };
  const set = (given) => { for (const [name, one] of Object.entries(given)) if (one !== null) inner.get(name)?.set(one); };
  return { element, value, set };
}

/** An objective or a task: a name of the catalogue, what it is, and its own fields. */
function named(path, about, entries, shape) {
  const first = choice(path, {}, { ...about, required: about.required || !shape.default }, entries.map((each) => [each.name, each.name.replaceAll('_', ' ')]), 'choose…');
  const about_it = make('p', { class: 'hint' });
  const inside = make('div');
  let fields = null;
  const select = first.element.querySelector('select');
  const show = () => {
    const entry = entries.find((each) => each.name === select.value);
    fields = null;
    inside.replaceChildren();
    about_it.replaceChildren(entry ? entry.description.split('\n\n')[0] : '');
    const [title, link] = (entry?.paper ?? '').split(/,?\s*(https:\S+)$/);
    if (link) about_it.append(' ', make('a', { href: link, rel: 'noreferrer' }, title || 'paper'));
    if (!entry || !Object.keys(entry.parameters.properties ?? {}).some((each) => each !== 'name')) return;
    fields = group(path, { properties: entry.parameters.properties }, { ...about, root: entry.parameters }, { name: entry.name });
    inside.append(make('details', {}, make('summary', {}, `Settings of ${entry.name.replaceAll('_', ' ')}`), fields.element));
  };
  select.addEventListener('change', show);
  if (entries.length && about.required) { select.value = preferred(entries); show(); }
  const set = (value) => { first.set(value); show(); fields?.set(value); };
  const value = () => (select.value ? { name: select.value, ...(fields?.value() ?? {}) } : undefined);
  return { element: make('div', {}, first.element, about_it, inside), value, set };
}

function preferred(entries) {
  const good = ['span_contrast', 'simclr', 'classification', 'mlm', 'clip'];
  return good.find((name) => entries.some((each) => each.name === name)) ?? entries[0].name;
}

/** Exactly one of several measures of how long to train. */
function budget(path, shape, about) {
  const units = Object.keys(shape.properties);
  const unit = make('select', { 'aria-label': 'Unit of the budget' }, ...units.map((each) => make('option', {}, each)));
  const input = make('input', { type: 'number', step: 'any', min: 0, placeholder: 'the recipe’s' });
  unit.value = 'minutes';
  const field_ = wrap(path, { description: 'How long to train; minutes fit the schedule to the machine.' }, input, about.required);
  const pair = make('div', { class: 'pair' });
  input.replaceWith(pair);
  pair.append(input, unit);
  const set = (value) => { const name = units.find((each) => value[each]); if (name) { unit.value = name; input.value = value[name]; } };
  return { element: field_, value: () => (input.value === '' ? undefined : { [unit.value]: Number(input.value) }), set };
}
