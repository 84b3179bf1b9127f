// The first view: which claims hold, and where?

const GROUPS = [
  ["supported", "Supported"],
  ["refuted", "Refuted"],
  ["both", "Supported in one scope, refuted in another"],
  ["leans for", "Undecided, leaning towards the claim"],
  ["leans against", "Undecided, leaning against the claim"],
  ["open", "Undecided"],
  ["stopped", "Stopped: more seeds would not decide"],
  ["not run", "Not run"],
];

/** Under which heading a claim stands: a verdict counts before a leaning. */
function groupOf(claim) {
  const found = new Set(claim.tests.map((test) => test.standing));
  if (found.has("supported") && found.has("refuted")) return "both";
  const leanings = ["leans for", "leans against"].filter((standing) => found.has(standing));
  for (const standing of ["supported", "refuted"]) if (found.has(standing)) return standing;
  if (leanings.length) return leanings.length === 2 ? "open" : leanings[0];
  return ["open", "stopped", "not run"].find((standing) => found.has(standing)) || "not run";
}

const SHOWN = 8; // verdicts at the top of the page

const KINDS = { statistical: "test error", equality: "equality of networks", cost: "training cost" };

/** The claims with a verdict from a test of errors: the answer to the page's question, before anything else. */
function verdicts() {
  const decided = DATA.claims
    .filter((claim) => claim.kind === "statistical")
    .flatMap((claim) =>
      ["supported", "refuted"].map((standing) => [
        claim,
        standing,
        claim.tests.filter((test) => test.standing === standing),
      ]),
    )
    .filter(([, , tests]) => tests.length)
    .sort((a, b) => DATA.standings.indexOf(a[1]) - DATA.standings.indexOf(b[1]));
  return el(
    "section",
    { class: "card verdicts", "aria-label": "Verdicts" },
    el("p", { class: "pad answer" }, DATA.lead[0]),
    el(
      "ul",
      { class: "plain" },
      decided.slice(0, SHOWN).map(([claim, standing, tests]) => {
        const places = unique(tests.map(scopeWords));
        return el(
          "li",
          {},
          chip(standing),
          el(
            "span",
            {},
            el("a", { href: link("claims", {}, [claim.id]) }, claim.statement),
            " ",
            el(
              "span",
              { class: "small muted" },
              `${cite(claim.paper)}; ${places[0]}${places.length > 1 ? ` and ${count(places.length - 1, "other test")}` : ""}`,
            ),
          ),
        );
      }),
    ),
    decided.length > SHOWN ? el("p", { class: "pad small" }, `${decided.length - SHOWN} more below.`) : null,
    DATA.lead.length > 3 ? el("p", { class: "pad small muted" }, DATA.lead.slice(3).join(" ")) : null,
  );
}

/** Noise, backbone and the like of a claim's tests, for the filters. */
function wheres(position) {
  return unique(DATA.claims.flatMap((claim) => claim.tests.map((test) => test.where[position]))).sort();
}

function bars() {
  return el(
    "div",
    { class: "papers" },
    DATA.papers
      .filter((paper) => DATA.counts[paper.name])
      .map((paper) => {
        const counts = DATA.counts[paper.name];
        const tests = DATA.standings
          .filter((standing) => counts[standing] && standing !== "not run")
          .map((standing) => [standing, counts[standing]]);
        const all = tests.reduce((sum, [, value]) => sum + value, 0);
        const others = DATA.claims
          .filter((claim) => claim.paper === paper.name && claim.kind !== "statistical")
          .flatMap((claim) => claim.tests);
        return el(
          "section",
          { class: "card pad paper" },
          el("h2", {}, el("a", { href: link("claims", { paper: paper.name }) }, paper.cite)),
          all
            ? el(
                "div",
                { class: "stack", "aria-hidden": "true" },
                tests.map(([standing, value]) =>
                  el("span", { class: cssName(standing), style: `flex-grow:${value}` }, String(value)),
                ),
              )
            : null,
          el(
            "ul",
            { class: "legend" },
            tests.map(([standing, value]) =>
              el("li", {}, chip(standing, `${value} ${value === 1 ? standing : standing.replace("leans", "lean")}`)),
            ),
          ),
          el(
            "p",
            { class: "small muted" },
            all ? `${count(all, "test")} of test error` : "Not run yet",
            others.length ? `; beside these ${others.length} of networks or costs` : "",
            paper.reading ? `. Results of ${paper.reading}` : "",
            ".",
          ),
        );
      }),
  );
}

function matches(claim, test, wanted) {
  return (
    (!wanted.verdict || test.standing === wanted.verdict) &&
    (!wanted.data || test.where[0] === wanted.data) &&
    (!wanted.noise || test.where[1] === wanted.noise) &&
    (!wanted.backbone || test.where[2] === wanted.backbone) &&
    (!wanted.profile || test.profile === wanted.profile)
  );
}

function chosenClaims(wanted) {
  const byTest = ["verdict", "data", "noise", "backbone", "profile"].some((name) => wanted[name]);
  const words = (wanted.q || "").toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.claims
    .filter(
      (claim) => (!wanted.paper || claim.paper === wanted.paper) && (!wanted.kind || claim.kind === wanted.kind),
    )
    .filter((claim) => {
      const text = [claim.id, claim.statement, claim.quote, claim.source, claim.hypothesis, cite(claim.paper)]
        .join(" ")
        .toLowerCase();
      return words.every((word) => text.includes(word));
    })
    .map((claim) =>
      byTest ? { ...claim, tests: claim.tests.filter((test) => matches(claim, test, wanted)), not_run: [] } : claim,
    )
    .filter((claim) => !byTest || claim.tests.length || (wanted.verdict === "not run" && !claim.tests.length));
}

/** A claim with its verdicts; what is behind them is drawn when it is opened. */
function claimCard(claim, open) {
  const counts = new Map();
  for (const test of claim.tests) counts.set(test.standing, (counts.get(test.standing) || 0) + 1);
  const parts = claim.tests
    .flatMap((test) => test.parts.slice(0, 3))
    .filter((part) => part.estimate !== undefined)
    .slice(0, 6);
  const at = parts.length ? scale(reach(parts, claim), 6, 154, claim.unit === "ratio") : null;
  const card = el(
    "details",
    { class: `card claim ${cssName(groupOf(claim))}`, id: `claim-${claim.id}` },
    el(
      "summary",
      {},
      el(
        "span",
        { class: "what" },
        el("span", { class: "statement" }, claim.statement),
        " ",
        el(
          "span",
          { class: "small muted" },
          cite(claim.paper),
          claim.kind === "statistical" ? "" : ` · ${KINDS[claim.kind]}`,
        ),
        " ",
        el(
          "span",
          { class: "chips" },
          DATA.standings
            .filter((standing) => counts.has(standing))
            .map((standing) => {
              const places = unique(
                claim.tests.filter((test) => test.standing === standing).map((test) => scopeWords(test)),
              );
              return chip(
                standing,
                `${standing}: ${places.length === 1 ? places[0] : `${counts.get(standing)} tests`}`,
              );
            }),
          claim.tests.length ? null : chip("not run"),
        ),
      ),
      at ? forest(parts, claim, at, { width: 160, height: parts.length > 3 ? 9 : 13 }) : null,
    ),
  );
  const body = el("div", { class: "body" });
  card.append(body);
  const drawBody = () => {
    if (card.open && !body.hasChildNodes()) fill(body, details(claim));
  };
  card.addEventListener("toggle", drawBody);
  card.open = open;
  drawBody();
  return card;
}

VIEWS.claims = {
  title: "Claims",
  draw(wanted, [id]) {
    const change = (name) => (value) => stay("claims", { ...wanted, [name]: value });
    const all = (values) => [["", "all"], ...values.map((value) => [value, value])];
    const claims = id ? DATA.claims.filter((claim) => claim.id === id) : chosenClaims(wanted);
    const filtered = Object.values(wanted).some(Boolean);
    if (id) {
      return [
        el("h1", {}, "One claim"),
        el("p", {}, el("a", { href: link("claims") }, "All claims")),
        claims.length ? claimCard(claims[0], true) : el("p", {}, "This page has no such claim."),
      ];
    }
    const kinds = Object.keys(KINDS);
    const groups =
      wanted.sort === "paper"
        ? DATA.papers.map((paper) => [paper.cite, claims.filter((claim) => claim.paper === paper.name)])
        : GROUPS.map(([group, title]) => [
            title,
            claims
              .filter((claim) => groupOf(claim) === group)
              .sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind)),
          ]);
    const box = el("input", {
      type: "search",
      value: wanted.q || "",
      oninput: (event) => change("q")(event.target.value),
    });
    return [
      el("h1", {}, "Which claims of the papers hold?"),
      filtered ? null : [verdicts(), bars()],
      el(
        "form",
        {
          class: "controls",
          role: "search",
          "aria-label": "Choose claims",
          onsubmit: (event) => event.preventDefault(),
        },
        labelled("Search", box, "wide"),
        select(
          "Paper",
          [["", "all"], ...DATA.papers.map((paper) => [paper.name, paper.cite])],
          wanted.paper || "",
          change("paper"),
        ),
        select("Verdict", all(DATA.standings), wanted.verdict || "", change("verdict")),
        el(
          "details",
          {
            class: "more",
            open:
              matchMedia("(min-width: 60rem)").matches ||
              ["data", "noise", "backbone", "kind", "sort"].some((name) => wanted[name]),
          },
          el("summary", {}, "More filters"),
          el(
            "div",
            { class: "controls" },
            select("Data set", all(wheres(0)), wanted.data || "", change("data")),
            select("Noise", all(wheres(1)), wanted.noise || "", change("noise")),
            select("Backbone", all(wheres(2)), wanted.backbone || "", change("backbone")),
            select("About", [["", "all"], ...Object.entries(KINDS)], wanted.kind || "", change("kind")),
            select(
              "Order",
              [
                ["", "by verdict"],
                ["paper", "by paper"],
              ],
              wanted.sort || "",
              change("sort"),
            ),
          ),
        ),
        filtered ? el("button", { type: "button", onclick: () => stay("claims", {}) }, "Show all") : null,
      ),
      el(
        "p",
        { class: "small muted", role: "status" },
        `${count(claims.length, "claim")} of ${DATA.claims.length}. ` +
          "Supported and refuted are verdicts; leaning describes the plain 95 % interval and decides nothing.",
      ),
      groups
        .filter(([, members]) => members.length)
        .map(([title, members]) =>
          el(
            "section",
            {},
            el("h2", {}, `${title} `, el("span", { class: "muted" }, `(${members.length})`)),
            members.map((claim) => claimCard(claim, false)),
          ),
        ),
      untested(wanted.paper, filtered && !wanted.paper),
    ];
  },
};

function untested(paper, hidden) {
  const found = DATA.untested.filter((one) => !paper || one.paper === paper);
  if (!found.length || hidden) return null;
  return el(
    "section",
    {},
    el(
      "h2",
      {},
      "Also stated, and decided by no comparison of runs ",
      el("span", { class: "muted" }, `(${found.length})`),
    ),
    el(
      "ul",
      {},
      found.map((one) =>
        el("li", {}, `${one.statement} `, el("span", { class: "muted" }, `${one.source}. ${one.reason}`)),
      ),
    ),
  );
}
