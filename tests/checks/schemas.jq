# From Kubernetes' OpenAPI document, or from a CustomResourceDefinition, to the JSON schemas that
# kubeconform looks for: one line for each kind, a file's name, a tab, and the schema.
#
# Fields that a schema doesn't know are mistakes, as for `kubectl apply --validate=strict`.

def file_name($group; $version; $kind):
    [$kind, ($group | split(".")[0]), $version]
    | map(select(. != null and . != "") | ascii_downcase)
    | join("-") + ".json";

# Values that the API server takes as a number or as a string.
def number_or_string: {oneOf: [{type: "string"}, {type: "number"}]};

def openapi:
    {definitions: (.definitions
        | map_values(if has("properties") then .additionalProperties = false else . end)
        | ."io.k8s.apimachinery.pkg.api.resource.Quantity" = number_or_string
        | ."io.k8s.apimachinery.pkg.util.intstr.IntOrString" = number_or_string)} as $all
    | "definitions.json\t\($all | tojson)",
      (.definitions | to_entries[]
        | .key as $name
        | .value."x-kubernetes-group-version-kind"[0] // empty
        | {"$ref": "definitions.json#/definitions/\($name)"} as $schema
        | "\(file_name(.group; .version; .kind))\t\($schema | tojson)");

# Here schemas stand within each other.
def strict:
    if has("properties") and (."x-kubernetes-preserve-unknown-fields" | not)
    then .properties |= map_values(strict) | .additionalProperties = false
    elif (.additionalProperties | type) == "object" then .additionalProperties |= strict
    else . end
    | if has("items") then .items |= strict else . end;

def crd:
    .spec as $spec
    | $spec.versions[]
    | "\(file_name($spec.group; .name; $spec.names.kind))\t\(.schema.openAPIV3Schema | strict | tojson)";

if .kind == "CustomResourceDefinition" then crd else openapi end
