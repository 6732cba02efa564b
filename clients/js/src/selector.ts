// Characters of a value (RFC 6570 §2.3 and appendix A), as the server's selectors know them.
const UNRESERVED = "\\w\\-.~,";
const RESERVED = "\\w\\-.~:/?#[\\]@!$&'()*+,;=";
const ESCAPE = "%[0-9A-Fa-f]{2}";
const NAME = `(?:\\w|${ESCAPE})+(?:\\.(?:\\w|${ESCAPE})+)*`;
const VARIABLE = new RegExp(`^(${NAME})(\\*|:[1-9]\\d{0,3})?$`);
const LITERAL = new RegExp(`^(?:[!#$&-;=?-\\[\\]_a-z~\\u00a0-\\uffef]|${ESCAPE})*$`);

const quoted = (text: string) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
const values = (allowed: string) => `(?:[${allowed}]|${ESCAPE})*`;

/** Whether topics match a selector: its own text, `*`, or an expansion of a URI template. */
export function matcher(selector: string): (topic: string) => boolean {
  if (selector === "*") return () => true;
  const pattern = selector.includes("{") ? patternOf(selector) : null;
  return (topic) => topic === selector || (pattern?.test(topic) ?? false);
}

/** The pattern of a template; null for a text that is none. */
function patternOf(text: string): RegExp | null {
  const [first = "", ...others] = text.split("{");
  if (!LITERAL.test(first)) return null;
  let pattern = quoted(first);
  for (const other of others) {
    const end = other.indexOf("}");
    const expression = end < 0 ? null : expressionOf(other.slice(0, end));
    const literal = other.slice(end + 1);
    if (expression === null || !LITERAL.test(literal)) return null;
    pattern += expression + quoted(literal);
  }
  return new RegExp(`^${pattern}$`);
}

function expressionOf(inside: string): string | null {
  const sign = /^[+#./;?&]?/.exec(inside)![0];
  const variables = inside.slice(sign.length).split(",").map((spec) => VARIABLE.exec(spec));
  if (!variables.every((found) => found !== null)) return null;
  const first = sign && `\\${sign}`;
  const explodes = variables.some((found) => found[2] === "*");
  if (!";?&".includes(sign || "-")) {
    const isPath = sign === "/";
    const value = values((/[+#]/.test(sign) ? RESERVED : UNRESERVED) + (explodes ? (isPath ? "=/" : "=") : ""));
    return `(?:${sign === "+" ? "" : first}${value}){0,${isPath && !explodes ? variables.length : 1}}`;
  }
  // Pairs by the names of the variables, in any order; the names of a map are its own.
  const pairs = variables.map(([, name = "", more]) =>
    more === "*"
      ? `(?:[${UNRESERVED}=]|${ESCAPE})+`
      : `${quoted(name)}(?:=${values(UNRESERVED)})${sign === ";" ? "?" : ""}`,
  );
  const pair = `(?:${pairs.join("|")})`;
  return `(?:${first}${pair}(?:${sign === "?" ? "&" : first}${pair})*)?`;
}
