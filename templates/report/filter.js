// The filter: words that must occur, and conditions on columns: `lora_rank=8 failed gsm8k>0.4 -dora`.

const CONDITION = /^(-?)([^=<>!~]+)(!=|>=|<=|=|>|<)(.*)$/;

// Returns {tests, problems}: functions that a row has to pass, and what was not understood.
function parseFilter(text) {
  const tests = [];
  const problems = [];
  for (const term of text.trim().split(/\s+/).filter(Boolean)) {
    const found = CONDITION.exec(term);
    if (!found) tests.push(wordTest(term));
    else {
      const [, not, name, sign, wanted] = found;
      const reads = readerOf(name);
      if (!reads) problems.push(name);
      else if (wanted) tests.push((row) => conditionHolds(reads(row), sign, wanted) !== Boolean(not));
    }
  }
  return {tests, problems};
}

function wordTest(term) {
  const not = term.length > 1 && term.startsWith('-');
  const word = (not ? term.slice(1) : term).toLowerCase();
  return (row) => haystack(row).includes(word) !== not;
}

function haystack(row) {
  if (row.haystack === undefined) {
    const parts = row.members.flatMap((member) => [member.suite, member.name, member.state, member.cmd,
      ...report.columns.filter((column) => column.kind !== 'figure').map((column) => member.values[column.key])]);
    row.haystack = parts.filter((part) => part !== undefined && part !== null).join('\n').toLowerCase();
  }
  return row.haystack;
}

// Returns a reader of a row's values by a column's key or label, or by the only key or label that begins so.
function readerOf(name) {
  const wanted = name.toLowerCase();
  if (['name', 'experiment'].includes(wanted)) return (row) => [row.name];
  if (['state', 'suite', 'cmd', 'repeat'].includes(wanted)) return (row) => row.members.map((member) => member[wanted]);
  const column = columnNamed(name);
  if (column) return (row) => { const cell = cellOf(row, column.key); return [cell.value === null ? cell.missing ? null : cell.text : cell.value]; };
  if (report.experiments.some((experiment) => wanted in experiment.set)) {
    return (row) => row.members.map((member) => wanted in member.set ? String(member.set[wanted][0]) : null);
  }
  return null;
}

function conditionHolds(values, sign, wanted) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const number = Number(wanted);
  const same = (value) => value !== null && (typeof value === 'number' || !Number.isNaN(Number(value)) && value !== '') && !Number.isNaN(number)
    ? Math.abs(Number(value) - number) <= 1e-9 * Math.abs(number)
    : String(value).toLowerCase() === wanted.toLowerCase();
  if (sign === '=') return known.some(same);
  if (sign === '!=') return !known.some(same);
  return known.some((value) => ({'>': value > number, '<': value < number, '>=': value >= number, '<=': value <= number})[sign]);
}
