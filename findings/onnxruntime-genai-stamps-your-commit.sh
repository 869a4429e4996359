#!/bin/sh
# onnxruntime-genai's model builder stamps the git commit of YOUR repository into the ONNX file, as its own version.
#
# Seen with onnxruntime-genai 0.18.0 (CPU wheel, Python 3.11). The builder writes `producer_version` as
# "<release>+<commit>". For the commit it runs `git rev-parse HEAD` five folders above its own file. Installed from a wheel
# into a virtual environment that lies inside a project, that is the project's own repository. The same model, exported with
# the same packages before and after an unrelated commit, therefore gives two different files and two different digests.
# Expected: the commit that the wheel was built from, which the package knows (`onnxruntime_genai.__commit__`), as it
# writes when no repository surrounds the environment. Setting GIT_DIR=/dev/null for the export gives that.
#
# Output seen:
#   stamped: 0.18.0+<first 7 digits of the surrounding repository's commit>
#   with GIT_DIR=/dev/null: 0.18.0+00d66ef
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
git init --quiet project
cd project
git -c user.name=someone -c user.email=someone@example.org commit --quiet --allow-empty -m "anything"
commit=$(git rev-parse HEAD | cut -c1-7)
python3 -m venv .venv
.venv/bin/python -m pip install --quiet onnxruntime-genai==0.18.0 onnxruntime==1.32.0 onnx==1.23.2 onnx-ir==1.1.0 \
    torch==2.13.0 transformers==5.24.0
cat > stamp.py <<'PY'
import onnx_ir as ir
from onnxruntime_genai.models.builders.base import Model

graph = ir.Graph(inputs=(), outputs=(), nodes=(), opset_imports={"": 21}, name="empty")
model = ir.Model(graph, ir_version=10, producer_name="onnxruntime-genai")
Model.stamp_build_metadata(model)
print(model.producer_version)
PY
stamped=$(.venv/bin/python stamp.py 2>/dev/null | tail -1)
without=$(GIT_DIR=/dev/null .venv/bin/python stamp.py 2>/dev/null | tail -1)
echo "the surrounding repository is at $commit"
echo "stamped: $stamped"
echo "with GIT_DIR=/dev/null: $without"
[ "$stamped" = "0.18.0+$commit" ] || { echo "changed: the surrounding commit is no longer stamped" >&2; exit 1; }
[ "$without" = "0.18.0+00d66ef" ] || { echo "changed: another stamp without a repository" >&2; exit 1; }
