"use strict";
// Browse the test rows: filters, search, pages. Texts are only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("rows-data").textContent);
  const box = document.getElementById("rows-list");
  const find = (id) => document.getElementById(id);
  const size = 10;
  let page = 0;

  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const points = (row, at) => (row.got[at] ? row.got[at][1] : 0);
  const [one, other] = data.pair || [0, null];
  const tests = {
    all: () => true,
    better: (r) => other !== null && points(r, one) > points(r, other),
    worse: (r) => other !== null && points(r, one) < points(r, other),
    wrong: (r) => r.got.every((g) => !g || g[1] < 100),
    right: (r) => r.got.every((g) => g && g[1] >= 100),
    differ: (r) => new Set(r.got.filter(Boolean).map((g) => g[1])).size > 1,
  };
  const options = (id, values) => {
    const select = find(id);
    if (!select) return;
    for (const value of [...new Set(values)].sort()) select.append(new Option(value, value));
    if (select.options.length < 3) select.parentElement.hidden = true;
  };
  options("rows-label", data.rows.map((r) => r.label).filter((x) => x !== null));
  options("rows-slice", data.rows.flatMap((r) => r.in_slice));

  const chosen = () => {
    const test = tests[find("rows-which").value];
    const label = find("rows-label").value;
    const slice = find("rows-slice").value;
    const text = find("rows-search").value.toLocaleLowerCase();
    return data.rows.filter((r) => test(r)
      && (!label || r.label === label)
      && (!slice || r.in_slice.includes(slice))
      && (!text || [r.id, r.in, r.want, ...r.got.map((g) => (g ? g[0] : ""))]
        .some((t) => t.toLocaleLowerCase().includes(text))));
  };
  const answer = (list, name, text, score) => {
    list.append(make("dt", name));
    const value = make("dd");
    const body = make("div", text || "no answer", text ? "data" : "quiet");
    body.dir = "auto";
    value.append(body);
    const mark = make("dd", undefined, "right");
    if (score !== null) {
      const kind = score >= 100 ? "good" : score <= 0 ? "bad" : "warn";
      const word = score >= 100 ? "right" : score <= 0 ? "wrong" : score.toFixed(1);
      mark.append(make("span", word, `tag ${kind}`));
    }
    list.append(value, mark);
  };
  const draw = () => {
    const rows = chosen();
    const pages = Math.max(1, Math.ceil(rows.length / size));
    page = Math.min(page, pages - 1);
    box.replaceChildren(...rows.slice(page * size, (page + 1) * size).map((row) => {
      const article = make("article", undefined, "example");
      article.setAttribute("aria-label", `Row ${row.id}`);
      const list = make("dl");
      const head = make("dt", "Row ", "row-id");
      head.append(make("span", row.id, "mono"));
      if (row.in_slice.length) head.append(` · ${row.in_slice.join(", ")}`);
      list.append(head);
      answer(list, "Input", row.in, null);
      answer(list, "Wanted", row.want, null);
      row.got.forEach((got, at) => {
        if (got) answer(list, data.candidates[at], got[0], got[1]);
      });
      article.append(list);
      return article;
    }));
    const many = (n) => n.toLocaleString("en");
    find("rows-count").textContent = rows.length
      ? `${many(page * size + 1)} to ${many(Math.min(rows.length, (page + 1) * size))} of ${many(rows.length)}`
      : "no row is like that";
    find("rows-back").disabled = page === 0;
    find("rows-next").disabled = page >= pages - 1;
  };
  const again = () => { page = 0; draw(); };
  for (const id of ["rows-which", "rows-label", "rows-slice"]) find(id).addEventListener("change", again);
  find("rows-search").addEventListener("input", again);
  const turn = (by) => { page += by; draw(); find("h-rows").scrollIntoView(); };
  find("rows-back").addEventListener("click", () => turn(-1));
  find("rows-next").addEventListener("click", () => turn(1));
  find("rows-tools").hidden = false;
  find("rows-pages").hidden = false;
  draw();
})();
