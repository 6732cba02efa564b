// What all views share: elements, numbers, and requests. Texts of strangers only ever become text.

export const byId = (id) => document.getElementById(id);
export const fields = (form) => Object.fromEntries(new FormData(form));

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function row(cells) {
  const made = element("tr");
  for (const [className, content] of cells) {
    const cell = element("td", className);
    cell.append(content instanceof Node ? content : String(content ?? ""));
    made.append(cell);
  }
  return made;
}

// Checks of the server as items of a list.
export function checks(found) {
  return found.map((check) => {
    const item = element("li");
    item.append(
      element("span", check.verdict === "wrong" ? "wrong" : "", check.verdict + ": "),
      check.says + (check.do ? " → " + check.do : ""),
    );
    return item;
  });
}

export const number = (value) => Math.round(value).toLocaleString("en");

export function size(bytes) {
  for (const [unit, factor] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]]) {
    if (bytes >= factor) return (bytes / factor).toFixed(1) + " " + unit;
  }
  return Math.round(bytes) + " B";
}

export function age(seconds) {
  if (seconds === undefined || seconds === null) return "";
  for (const [unit, factor] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * factor) return Math.floor(seconds / factor) + " " + unit;
  }
  return Math.round(seconds) + " s";
}

export function message(text, isBad) {
  byId("message").textContent = text;
  byId("message").className = isBad ? "note bad" : "note";
}

// The operator's token is kept for this tab only, and sent in a header alone: no cookie, so no page
// of another site can act with it.
const KEPT = "fastsse-operator";
export const operator = () => sessionStorage.getItem(KEPT) || "";
export function useOperator(token) { sessionStorage.setItem(KEPT, token); }

// A parameter with several values is repeated; one without a value is left out.
export async function ask(path, parameters = {}, method = "GET", body = undefined) {
  const pairs = Object.entries(parameters).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  const query = new URLSearchParams(pairs.filter(([, value]) => value));
  const headers = operator() ? {Authorization: "Bearer " + operator()} : {};
  let response;
  try {
    response = await fetch(path + (query.size ? "?" + query : ""), {method, headers, body, cache: "no-store"});
  } catch (error) {
    throw new Error("The server can't be reached.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  if (answer.missing && answer.missing.length) message("Not all answered in time: " + answer.missing.join(", "), true);
  return answer;
}

// Runs something that asks the server, and shows why it failed.
export async function attempt(act) {
  try {
    message("");
    await act();
  } catch (error) {
    message(error.message, true);
  }
}
