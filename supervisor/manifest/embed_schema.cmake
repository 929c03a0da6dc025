# cmake -DINPUT=… -DOUTPUT=… -P: manifest.schema.json as a .cc, so that the binary needs no checkout at run time.
file(READ ${INPUT} schema)
set(text "// Generated from manifest.schema.json by embed_schema.cmake.\n#include \"supervisor/manifest/manifest_schema.h\"\n\nnamespace bulkhead {\n\n")
string(APPEND text "std::string_view ManifestSchemaJson() {\n  return R\"bulkhead_json(${schema})bulkhead_json\";\n}\n\n}  // namespace bulkhead\n")
file(WRITE ${OUTPUT} "${text}")
