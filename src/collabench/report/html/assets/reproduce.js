// How do I get this? Commands, versions and digests.

const REBUILT = {
  same: "the report built again has the same numbers",
  differs: "the report built again has other numbers",
  "made elsewhere": "the report built again has other numbers, and this one was made on another device",
  "not built": "the report was not built again, since files are missing or damaged",
};

function repetition(run) {
  const name = `${run.label}, seed ${run.seed}`;
  if (run.repeated === null) return `${name}: failed when it was trained again`;
  const errors = `test error ${number(run.recorded)} % recorded, ${number(run.repeated)} % now`;
  if (run.compared === "bytes") return `${name}: ${run.agrees ? "the same bytes" : `other bytes, ${errors}`}`;
  return `${name}: ${errors}${run.allowed === null ? "" : `, ${number(run.allowed)} points allowed`} (${run.why})`;
}

/** What `collabench verify` found. Without a record of it: how to make one. */
function verification(profile) {
  const found = profile.verified,
    again = command(`collabench verify -p ${profile.profile}`);
  if (!found) return [el("p", {}, "No verification of this report is recorded. This command checks it:"), again];
  const hashed = Object.entries(found.hashed).map(([kind, files]) => `${files.toLocaleString("en")} ${kind}`);
  return [
    profile.verified_now
      ? null
      : el("p", { class: "notice" }, "Verified before this report was changed:"),
    el(
      "p",
      {},
      el("strong", {}, found.differences ? count(found.differences, "difference") : "Verified"),
      found.differences
        ? " found; the command below names them. "
        : ": no file is damaged, and every repetition agrees. ",
      `Hashed again: ${hashed.join(", ")}; ${REBUILT[found.rebuilt]}.`,
    ),
    el("p", {}, `${count(found.repetitions.length, "run")} trained again, drawn with seed ${found.draw_seed}:`),
    el(
      "ul",
      { class: "small" },
      found.repetitions.map((run) => el("li", {}, run.agrees ? "" : el("strong", {}, "Differs: "), repetition(run))),
    ),
    again,
  ];
}

function profileSection(profile) {
  const { report, origin, digests } = profile,
    name = profile.profile;
  const cells = Object.values(profile.cells || {});
  const data = unique(cells.map((cell) => cell.dataset_digest).filter(Boolean));
  return el(
    "section",
    { class: "card pad profile" },
    el("h2", {}, profile.name),
    el(
      "p",
      {},
      `${report.description[0].toUpperCase()}${report.description.slice(1)}. ${count(report.runs, "training run")}`,
      report.missing.length ? `, ${report.missing.length} missing` : "",
      ".",
    ),
    el("h3", {}, "Train it"),
    command(`make reproduce PROFILE=${name}`),
    el("h3", {}, "Does it hold?"),
    verification(profile),
    el("h3", {}, "What it was made with"),
    origin
      ? facts([
          ["Devices", origin.devices.join("; ")],
          ["Versions", origin.versions.join(", ")],
          ["Commits", origin.commits.join(", ")],
        ])
      : el("p", { class: "small muted" }, "This report does not record it."),
    el("h3", {}, "Digests (SHA-256)"),
    facts([
      ...Object.entries(digests).map(([file, digest]) => [file, el("code", { class: "digest" }, digest)]),
      ...data.map((digest) => ["data set", el("code", { class: "digest" }, digest)]),
    ]),
  );
}

VIEWS.reproduce = {
  title: "Reproduce",
  draw() {
    return [
      el("h1", {}, "How do I get this?"),
      el(
        "p",
        {},
        "In a clone of the repository, ",
        el("code", {}, "make reproduce"),
        " trains what is missing, builds the tables, compares them with the accepted ones byte for byte, and writes this page. ",
        el("code", {}, "collabench verify"),
        " hashes every result, builds the report again and trains a sample of runs again; it ends with exit code 0 if all of them agree.",
      ),
      command("git clone <address> collabench && cd collabench && make reproduce"),
      DATA.profiles.map(profileSection),
    ];
  },
};
