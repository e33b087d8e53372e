// Numbers as text, by the same rules as the other formats, and what is computed over repeats.

function numberText(value, decimals) {
  if (value && Math.abs(value) < 10 ** -decimals) return shortText(+value.toPrecision(2));
  if (Math.abs(value) >= 1e12) return tidyExponent(value.toPrecision(4));
  return rounded(value, decimals);
}

function shortText(value) {
  return Math.abs(value) < 1e-4 ? tidyExponent(value.toExponential()) : String(value);
}

// As toFixed, which is exact, but half of the last digit goes to the even one, as in Python: 0.5625 is 0.562.
const TIE_DIGITS = 30; // a number between 1e-10 and 1e12 that lies beside a tie shows it within so many
function rounded(value, decimals) {
  const up = value.toFixed(decimals);
  const exact = value.toFixed(decimals + TIE_DIGITS);
  const isTie = /^50*$/.test(exact.slice(-TIE_DIGITS));
  return isTie && '13579'.includes(up.at(-1)) ? exact.slice(0, -TIE_DIGITS).replace(/\.$/, '') : up;
}

// Settings print in their shortest form: 0.0001 as 1e-4, 8 as 8.
function settingText(value) {
  if (typeof value !== 'number') return String(value);
  return value && Math.abs(value) < 0.01 ? tidyExponent(value.toExponential(9)) : String(+value.toPrecision(10));
}

function tidyExponent(text) {
  return text.replace(/(\.\d*?)0+e/, '$1e').replace('.e', 'e').replace('e+', 'e');
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Sample standard deviation; null for fewer than two values.
function deviation(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  const found = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
  return found < 1e-12 * Math.abs(middle) ? 0 : found; // what is left of equal numbers is rounding
}

// At most about `count` round numbers from `low` to `high`.
function niceTicks(low, high, count) {
  const raw = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= raw * 0.999);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) ticks.push(+(at * step).toPrecision(12));
  return ticks;
}
