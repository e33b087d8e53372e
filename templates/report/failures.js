// Failures, grouped by cause: whose they are, what helps, and the commands to type, ready to copy.

const MOST_LINKS = 12;

views.push({id: 'failures', title: 'Failures', async render(section) {
  const groups = await unpackPart(report.data.failures) || [];
  const list = el('div', {class: 'failures'});
  section.append(list);
  const draw = () => {
    const shown = groups.filter((group) => !chosen.suite || group.suite === chosen.suite);
    section.hidden = !shown.length;
    list.replaceChildren(...shown.map((group, number) => failureGroup(group, number === 0 && shown.length < 4)));
  };
  on('rows', draw);
  draw();
}});

function failureGroup(group, open) {
  const count = group.jobs.length;
  const blocks = group.blocks ? el('span', {class: 'soft'}, ` · blocks ${group.blocks} job${group.blocks === 1 ? '' : 's'}`) : null;
  return el('details', {class: 'failure', open},
    el('summary', null, el('b', null, `${count} × `), stateBadge(group.state), group.cause ? ` ${group.cause}` : '', blocks),
    jobLinks(group.jobs),
    group.hint ? el('p', null, el('span', {class: 'soft'}, 'hint: '), group.hint) : null,
    ...group.steps.map(commandBlock),
    group.log ? el('p', {class: 'small'}, el('span', {class: 'soft'}, count > 1 ? 'log of the first: ' : 'log: '), el('code', null, group.log)) : null,
    group.lines.length ? el('pre', null, group.lines.join('\n')) : null);
}

function stateBadge(state) {
  return el('span', {class: `badge ${stateClass(state)}`}, el('span', {class: 'dot', 'aria-hidden': 'true'}), state.replaceAll('_', ' '));
}

function jobLinks(jobs) {
  const link = ([id, job]) => el('li', null, el('a', {href: `#exp=${encodeURIComponent(id)}`}, id.slice(id.indexOf('/') + 1)), ['train', 'export', 'infer'].includes(job) ? null : el('span', {class: 'soft'}, ` ${job}`));
  const list = el('ul', {class: 'inline'}, jobs.slice(0, MOST_LINKS).map(link));
  if (jobs.length > MOST_LINKS) {
    const more = el('button', {type: 'button', click: () => { list.append(...jobs.slice(MOST_LINKS).map(link)); more.remove(); }}, `${jobs.length - MOST_LINKS} more`);
    return el('div', null, list, more);
  }
  return list;
}

// A command to type, with what to know or change before it.
function commandBlock([command, remark]) {
  const button = el('button', {type: 'button', class: 'copy', click: () => copyText(command, button)}, 'copy');
  return el('div', {class: 'command'}, el('pre', {tabindex: '0'}, command), button, remark ? el('p', {class: 'soft small'}, remark) : null);
}
