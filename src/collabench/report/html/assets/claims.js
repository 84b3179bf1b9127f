// The first view: which claims hold, and where?

const GROUPS = {
  supported: "Supported",
  refuted: "Refuted",
  both: "Supported in one scope, refuted in another",
  "leans for": "Undecided, leaning towards the claim",
  "leans against": "Undecided, leaning against the claim",
  open: "Undecided",
  stopped: "Stopped: more seeds would not decide",
  "not run": "Not run",
};
const KINDS = { statistical: "test error", equality: "equality of networks", cost: "training cost" };
const BY_TEST = { // filters that choose tests; the others choose claims
  verdict: (test) => test.standing,
  data: (test) => test.where[0],
  noise: (test) => test.where[1],
  backbone: (test) => test.where[2],
  profile: (test) => test.profile,
};

/** Under which heading a claim stands: a verdict counts before a leaning. */
function groupOf(claim) {
  const found = Object.keys(GROUPS).filter((group) => claim.tests.some((test) => test.standing === group));
  const [first = "not run", second] = found;
  if (second === "refuted") return "both";
  return first === "leans for" && second === "leans against" ? "open" : first;
}

function chosenClaims(wanted) {
  const byTest = Object.keys(BY_TEST).filter((name) => wanted[name]);
  const fits = (test) => byTest.every((name) => BY_TEST[name](test) === wanted[name]);
  const unrun = byTest.join() === "verdict" && wanted.verdict === "not run";
  const words = (wanted.q || "").toLowerCase().split(/\s+/).filter(Boolean);
  return DATA.claims
    .filter((claim) => ["paper", "kind"].every((name) => !wanted[name] || claim[name] === wanted[name]))
    .filter((claim) => {
      const all = [claim.id, claim.statement, claim.quote, claim.source, claim.hypothesis, cite(claim.paper)].join(" ");
      return words.every((word) => all.toLowerCase().includes(word));
    })
    .filter((claim) => !byTest.length || claim.tests.some(fits) || (unrun && !claim.tests.length))
    .map((claim) => (byTest.length ? { ...claim, tests: claim.tests.filter(fits), not_run: [] } : claim));
}

const scopeWords = (test) => test.where.slice(0, 3).join(", ");

function someOf(texts, most = 3) {
  return texts.slice(0, most).join("; ") + (texts.length > most ? `; and ${texts.length - most} more` : "");
}

// ------------------------------------------------------------------------------------------------------- one claim

/** ``n 12, look 2 of 5``; nothing where no test counts seeds. */
function sizeWords(test) {
  const sizes = test.n ? [test.n] : unique(known(test).map((part) => part.n)).filter(Boolean);
  if (!sizes.length) return "";
  const looks = test.looks.length;
  const look = test.look ? `look ${test.look} of ${looks}` : looks ? `first look at ${test.looks[0]}` : "no looks";
  return `n ${sizes.join(" and ")}, ${look}`;
}

/** What a test compared, where that is not all that its claim declares. */
function comparedWords(test, claim) {
  const own = unique(test.parts.map((part) => part.compared));
  return test.compared || (own.join() === claim.compared.join() ? "" : someOf(own));
}

/** A claim with its quote, what was compared, and every scope and profile side by side; the rest when it is opened. */
function claimCard(claim, open) {
  const at = forestScale(claim, 220), body = el("div.body");
  const more = el("details.more", { open,
    ontoggle: () => more.open && !body.firstChild && fill(body, behind(claim)) },
  el("summary", "How it was tested, every interval and p"), body);
  if (open) fill(body, behind(claim));
  return el(`article.card.claim.${cssName(groupOf(claim))}`, { id: `claim-${claim.id}` },
    el("h3", el("a.statement", { href: link("claims", {}, [claim.id]) }, claim.statement)),
    el("blockquote", `“${claim.quote}” `, el("cite", claim.source)),
    el("p.small.compared", el("span.muted", `About ${KINDS[claim.kind]}. Compared: `), someOf(claim.compared)),
    el("ul.plain.tests", claim.tests.map((test) => {
      const parts = known(test), size = { width: 220, height: parts.length > 3 ? 9 : 14 };
      return el("li", el("div", chip(test.standing), el("span.small", ` ${scopeWords(test)}`)),
        el("div.small.muted",
          [comparedWords(test, claim), sizeWords(test), `profile ${test.profile}`].filter(Boolean).join("; ")),
        parts.length > 0 && forest(parts, claim, at, size));
    }), claim.tests.length === 0 && el("li", chip("not run"))),
    more);
}

function partLine(part, claim) {
  if (part.estimate == null) return part.note || "no value";
  const isRatio = claim.unit === "ratio", decimals = claim.unit.includes("per point") ? 4 : 2;
  const figure = (value) => number(value, decimals, !isRatio);
  const deciding = { low: part.adjusted_low, high: part.adjusted_high };
  return [
    el("strong", figure(part.estimate), isRatio ? " times" : ` ${claim.unit}`),
    `, 95 % interval ${interval(part, decimals, !isRatio)}`,
    `, interval that decides ${interval(deciding, decimals, !isRatio)}, n ${part.n}`,
    part.p != null && `, p ${pValue(part.p)}`,
    part.published_effect != null && `, published ${figure(part.published_effect)}`,
    part.seeds_needed != null && `, seeds needed ${part.seeds_needed.toLocaleString("en")}`,
    part.note && ` (${part.note.endsWith(" seeds") ? "to decide: " : ""}${part.note})`,
  ];
}

/** What a reader must know beside the verdict. */
function remarks(test, claim) {
  const percent = (share) => `${short(100 * share)} %`;
  const spent = test.error == null ? "" : `; ${percent(test.spent)} of ${percent(test.error)} of error spent`;
  return [
    test.published ? "the paper's own data set and backbone" : "an analogue: data set or backbone are not the paper's",
    test.declared_after_runs && claim.unit && "hypothesis written down after these runs",
    test.look && `look ${test.look} of ${test.looks.length}, at ${test.n} seeds${spent}`,
    test.look && test.stopped && `stopped: it would need more than ${test.looks.at(-1)} seeds`,
    test.look && test.early && "decided early, so the estimate overstates the effect on average",
    test.look && test.smallest_effect != null && `smallest effect of interest ${short(test.smallest_effect)}`,
    test.adjusted_p != null && `p of support over looks and family ${pValue(test.adjusted_p)}`,
    test.standing === "refuted" && claim.kind === "statistical" && DATA.untuned,
    test.note,
  ].filter(Boolean).map((remark) => remark.replace(/\.$/, "")).join("; ");
}

/** What is behind a claim: how it was tested, and every scope with its intervals as figures. */
function behind(claim) {
  const at = forestScale(claim, 240);
  return [
    facts([["Tested as", claim.hypothesis], ["Reading", claim.reading]]),
    list("ul.plain.behind", claim.tests, (test) => [
      el("p", chip(test.standing), ` ${test.compared ? `${test.compared}: ` : ""}${scopeWords(test)}`,
        el("span.muted", ` · ${test.where[3]} · profile ${test.profile}`)),
      el("p.small.muted", `${remarks(test, claim)}.`),
      list("ul.plain.parts", test.parts, (part) => [
        el("div", el("div.small", part.compared), el("div.small.muted", partLine(part, claim))),
        part.estimate != null && forest([part], claim, at,
          { width: 240, height: 18, axis: part === known(test).at(-1) })]),
    ]),
    at && el("p.small.muted", "Dot: estimate, method minus baseline. Thick: 95 % interval. Thin: the interval that " +
      "decides, widened for all tests of the paper. Tinted: the claimed side."),
    claim.not_run.length > 0 && el("details.small",
      el("summary", `Not run in ${count(claim.not_run.length, "declared scope")}`),
      list("ul", claim.not_run, (scope) => `${scope.where.join(", ")} (${scope.profile ? `profile ${scope.profile}` :
        "no profile"})${scope.published ? ": the paper's own setting" : ""}`)),
  ];
}

// ---------------------------------------------------------------------------------------------------------- the view

function filters(wanted, filtered) {
  const wheres = (name) => [["", "all"],
    ...unique(DATA.claims.flatMap((claim) => claim.tests.map(BY_TEST[name]))).sort()];
  const box = el("input", { type: "search", value: wanted.q || "",
    oninput: (event) => stay("claims", { ...wanted, q: event.target.value }) });
  return el("form.controls", { role: "search", "aria-label": "Choose claims",
    onsubmit: (event) => event.preventDefault() },
  labelled("Search", box, "control.wide"),
  choosers("claims", wanted, [
    ["paper", "Paper", [["", "all"], ...DATA.papers.map((paper) => [paper.name, paper.cite])]],
    ["verdict", "Verdict", [["", "all"], ...SYMBOLS.keys()]],
  ]),
  el("details.more", { open: matchMedia("(min-width: 60rem)").matches ||
    ["data", "noise", "backbone", "kind", "sort"].some((name) => wanted[name]) },
  el("summary", "More filters"),
  el("div.controls", choosers("claims", wanted, [
    ["data", "Data set", wheres("data")],
    ["noise", "Noise", wheres("noise")],
    ["backbone", "Backbone", wheres("backbone")],
    ["kind", "About", [["", "all"], ...Object.entries(KINDS)]],
    ["sort", "Order", [["", "by verdict"], ["paper", "by paper"]]],
  ]))),
  filtered && el("button", { type: "button", onclick: () => stay("claims", {}) }, "Show all"));
}

VIEWS.claims = {
  title: "Claims",
  draw(wanted, [id]) {
    if (id) {
      const claim = DATA.claims.find((one) => one.id === id);
      return [el("h1", "One claim"), el("p", el("a", { href: link("claims") }, "All claims")),
        claim ? claimCard(claim, true) : el("p", "This page has no such claim.")];
    }
    const claims = chosenClaims(wanted), kinds = Object.keys(KINDS);
    const filtered = Object.values(wanted).some(Boolean);
    const groups = wanted.sort === "paper"
      ? DATA.papers.map((paper) => [paper.cite, claims.filter((claim) => claim.paper === paper.name)])
      : Object.entries(GROUPS).map(([group, title]) => [title, claims.filter((claim) => groupOf(claim) === group)
        .sort((a, b) => kinds.indexOf(a.kind) - kinds.indexOf(b.kind))]);
    const untested = filtered && Object.keys(wanted).some((name) => wanted[name] && name !== "paper") ? []
      : DATA.untested.filter((one) => !wanted.paper || one.paper === wanted.paper);
    const section = ([title, members], content) => members.length > 0 &&
      el("section", el("h2", `${title} `, el("span.muted", `(${members.length})`)), content(members));
    return [
      el("h1", "Which claims of the papers hold?"),
      !filtered && stored("verdicts"),
      filters(wanted, filtered),
      el("p.small.muted", { role: "status" }, `${count(claims.length, "claim")} of ${DATA.claims.length}. ` +
        "Supported and refuted are verdicts; leaning describes the plain 95 % interval and decides nothing. In the " +
        "plots the dot is the estimate, the thick line the 95 % interval, the thin line the interval that decides."),
      groups.map((group) => section(group, (members) => members.map((claim) => claimCard(claim, false)))),
      section(["Also stated, and decided by no comparison of runs", untested], (members) => list("ul", members,
        (one) => [`${one.statement} `, el("span.muted", `${one.source}. ${one.reason}`)])),
    ];
  },
};
