//! tests/fixtures/bad through sbatch and srun: the very words of `aifb validate`, exit code 2,
//! nothing queued, nothing written.

/// Submits every fixture as `x.yaml`; prints what is not as it should be.
const SUBMIT_ALL: &str = r#"
count=0
for fixture in /aifb/tests/fixtures/bad/*.yaml; do
  name=$(basename "$fixture" .yaml)
  cp "$fixture" x.yaml
  for command in 'sbatch --job-name=JOB --aifb-recipe=x.yaml job.sh' \
                 'srun --job-name=JOB --aifb-recipe=x.yaml true'; do
    ${command/JOB/$1} >out 2>err; code=$?
    [[ $code == 2 ]] || echo "$name: ${command%% *} ended with $code: $(<err)"
    [[ ! -s out ]] || echo "$name: ${command%% *} wrote: $(<out)"
    # The plugin adds one line of its own, the last.
    [[ $(head -n -1 err) == "$(<"${fixture%.yaml}.txt")" ]] || echo "$name: ${command%% *} said: $(<err)"
    count=$((count + 1))
  done
done
echo "count $count"
"#;

/// What is not an ordinary file of text, by sbatch.
const STRANGE: &str = r#"
mkfifo fifo; mkdir folder; head -c 1048576 /dev/zero | tr '\0' '#' >large
printf 'aifb: 1\nname: caf\351\n' >latin1; printf x >unreadable; chmod 0 unreadable
for path in fifo folder large latin1 unreadable missing /dev/zero; do
  timeout 20 sbatch --job-name="$1" --aifb-recipe="$path" job.sh >out 2>err; code=$?
  [[ $code == 2 && ! -s out ]] && grep -q "reading recipe '$path'" err && grep -q 'hint: ' err ||
    echo "$path: $code $(<out) $(<err)"
done
"#;

#[test]
fn every_bad_recipe_is_refused_at_submission() {
    let case = case!("bad-recipes");
    case.write("job.sh", "#!/bin/bash\ntrue\n");
    let job_name = case.inside.rsplit('/').next().unwrap().to_owned();
    let said = case.run(&["bash", "-c", SUBMIT_ALL, "bash", &job_name]).ok();
    let (wrong, count) = said.rsplit_once("count ").unwrap();
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count.trim().parse::<u32>().unwrap() >= 60, "{count}");
    let said = case.run(&["bash", "-c", STRANGE, "bash", &job_name]).ok();
    assert!(said.is_empty(), "{said}");
    assert_eq!(case.run(&["squeue", "-h", "--states=all", "-n", &job_name]).ok(), "");
    assert!(case.runs().is_empty());
}
